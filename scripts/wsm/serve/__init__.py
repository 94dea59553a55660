# SPDX-License-Identifier: GPL-2.0-or-later
"""Serve the images of a killed source to the destination that waits."""
