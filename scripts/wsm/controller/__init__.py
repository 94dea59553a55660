# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon that watches hosts and moves VMs by itself."""
