# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests with guests of Debian's libvirt on two hosts."""
