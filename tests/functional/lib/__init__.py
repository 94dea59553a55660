# SPDX-License-Identifier: GPL-2.0-or-later
"""What the functional tests, the demo and the benchmarks have in common."""
