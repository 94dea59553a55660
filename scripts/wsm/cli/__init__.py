# SPDX-License-Identifier: GPL-2.0-or-later
"""wsmctl: what people type."""
