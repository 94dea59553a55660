# SPDX-License-Identifier: GPL-2.0-or-later
"""What developers use: build, checks, tests, benchmark, demo."""
