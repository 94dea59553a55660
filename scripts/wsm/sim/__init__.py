# SPDX-License-Identifier: GPL-2.0-or-later
"""A fleet that is not there: loads from traces, moves that take their time."""
