# SPDX-License-Identifier: GPL-2.0-or-later
"""Agents that are not there, for a controller that is."""
