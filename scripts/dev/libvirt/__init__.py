# SPDX-License-Identifier: GPL-2.0-or-later
"""Two hosts with Debian's libvirt on one machine."""
