# SPDX-License-Identifier: GPL-2.0-or-later
"""wsm-templates: sets of pages that several guests have."""
