# SPDX-License-Identifier: GPL-2.0-or-later
"""What runs on each host: it owns the life of VMs and carries out moves."""
