# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of crash safety, with real guests: see README.md."""
