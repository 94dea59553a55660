# SPDX-License-Identifier: GPL-2.0-or-later
"""What lintian says of our packages, beside what it says of Debian's."""

import re
from collections import Counter

# "W: qemu-utils: tag words", "E: qemu source: tag words"
TAG = re.compile(r"([EWIPX]): (\S+)(?: (?:source|changes|buildinfo))?: (\S+)")
Tags = Counter[tuple[str, str]]         # (package, tag): how often
# How old lintian itself is says nothing of a package: Debian 12's knows no
# policy of today
COMMAND = ("lintian --no-cfg --fail-on none --tag-display-limit 0 "
           "--allow-root --display-level '>=warning' "
           "--suppress-tags newer-standards-version")


def tags(text: str) -> Tags:
    """Return what lintian's output @text complains about."""
    found: Tags = Counter()
    for line in text.splitlines():
        if match := TAG.match(line):
            found[match[2], match[3]] += 1
    return found


def more(ours: Tags, theirs: Tags) -> list[str]:
    """Return a line for each tag that ours have more often than theirs."""
    return [f"{package}: {tag}: {count} times, Debian's has "
            f"{theirs[package, tag]}"
            for (package, tag), count in sorted(ours.items())
            if count > theirs[package, tag]]
