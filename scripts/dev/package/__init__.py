# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian packages of the patched QEMU; see docs/install.md."""
