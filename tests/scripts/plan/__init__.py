# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of wsm.plan: what is decided about VMs and their moves."""
