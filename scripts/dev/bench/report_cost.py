# SPDX-License-Identifier: GPL-2.0-or-later
"""All tables of what whole-system migration costs besides time."""

from dev.bench.report_cpu import CPU_NOTES, CPU_ROWS, CPU_TITLES
from dev.bench.report_crash_safe import (CRASH_NOTES, CRASH_ROWS,
                                         CRASH_TITLES)
from dev.bench.report_off import OFF_NOTES, OFF_ROWS, OFF_TITLES
from dev.bench.report_peers import PEER_NOTES, PEER_ROWS
from dev.bench.report_pull import PULL_NOTES, PULL_ROWS, PULL_TITLES

COST_ROWS = {**CPU_ROWS, **PULL_ROWS, **OFF_ROWS, **PEER_ROWS, **CRASH_ROWS}
COST_TITLES = {**CPU_TITLES, **PULL_TITLES, **OFF_TITLES, **CRASH_TITLES}
COST_NOTES = {**CPU_NOTES, **PULL_NOTES, **OFF_NOTES, **PEER_NOTES,
              **CRASH_NOTES}
