# SPDX-License-Identifier: GPL-2.0-or-later
"""All tests.  They may import scripts, never the reverse: see start.py."""
