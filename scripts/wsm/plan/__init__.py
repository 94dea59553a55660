# SPDX-License-Identifier: GPL-2.0-or-later
"""What is decided about VMs and their moves: pure, without clock or I/O.

The same input gives the same output; scripts/check sees to it that nothing
here imports what could make it otherwise.
"""
