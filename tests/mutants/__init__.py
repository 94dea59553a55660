# SPDX-License-Identifier: GPL-2.0-or-later
"""Mutants of the C code, which the unit tests must find."""
