# SPDX-License-Identifier: GPL-2.0-or-later
"""The benchmark: what is measured, and what becomes of the figures."""

import os

# Before the rig reads it: a slow link takes its time
os.environ.setdefault('WSM_TIMEOUT', '300')
