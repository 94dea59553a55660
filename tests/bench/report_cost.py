# SPDX-License-Identifier: GPL-2.0-or-later
"""All tables of what whole-system migration costs besides time."""

from report_cpu import CPU_NOTES, CPU_ROWS, CPU_TITLES

COST_ROWS = {**CPU_ROWS}
COST_TITLES = {**CPU_TITLES}
COST_NOTES = {**CPU_NOTES}
