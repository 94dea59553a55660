# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts, guests and disks on one machine, for tests, demo and benchmark."""
