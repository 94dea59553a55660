# SPDX-License-Identifier: GPL-2.0-or-later
"""The property test: a model of hosts and disks, and real QEMUs."""
