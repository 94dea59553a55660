# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of the agent's parts and of wsmctl, without QEMU."""
