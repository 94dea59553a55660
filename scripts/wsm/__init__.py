# SPDX-License-Identifier: GPL-2.0-or-later
"""What users of whole-system migration run.  Python's library is enough."""
