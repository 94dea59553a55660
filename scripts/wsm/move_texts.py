# SPDX-License-Identifier: GPL-2.0-or-later
"""What virsh-wsm shows of a move: one line, and what the user may want."""

import sys
import time
from typing import Any, Optional

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
LINE_SECONDS = 10.0         # between lines that go to no terminal

HANDED_OVER = """\
{name} runs at {there} already and cannot be called back. What it still lacks
comes from {here}, so leave both hosts and their QEMUs alone until it has. ^C
once more ends virsh-wsm; the move goes on without it, and
    virsh-wsm --resume {name} {uri}
shows it again, or takes it up if it has broken off.\
"""
BROKEN_OFF = """\
{name} runs at {there}, and {left} of it is still at {here} only. Do not end
it there, and do not end its QEMU here: 'virsh destroy', at either side, loses
data. When the hosts reach each other again, type
    virsh-wsm --resume {name} {uri}
If {there} is lost for good, this copy is as old as the handover:
docs/libvirt.md says how to start it.\
"""
SOURCE_LOST = """\
{name} runs at {there}, and its QEMU at {here} has ended ({state}) before all
was at {there}. What the guest lacks there it cannot read any more; the images
at {here} are as old as the handover. Save what the guest can still read, then
choose: docs/failure-modes.md, "The source is lost".\
"""
CRASHING = """\
{name} runs on at {there}. libvirt {libvirt} there ends itself when it is to take
up a post-copy (a bug of it), so it is not asked to. QEMU sends the missing
blocks of disks all the same when the hosts reach each other; what to do when
they are there is in docs/libvirt.md, "Broken in post-copy".\
"""
SLOW_MEMORY = """\
{name} changes its memory faster than it is sent. This goes on until it does
so no more, or until you type
    virsh migrate-postcopy {name}             hand it over now, memory follows
    virsh migrate-setmaxdowntime {name} 1000  a freeze may take 1000 ms
or ^C here.\
"""


def size(count: float) -> str:
    """Return a number of bytes for people."""
    for unit in UNITS:
        if count < 1024 or unit == UNITS[-1]:
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit in UNITS[:2] else f"{count:.1f} {unit}"


def progress(info: dict[str, Any], there: str) -> str:
    """Return one line on what QEMU says of a move at its source."""
    words = [info["phase"]]
    if "percent" in info:
        words.append(f"{info['percent']} %")
    if "remaining" in info:
        words.append(f"{size(info['remaining'])} left")
    if "speed" in info:
        words.append(f"{size(info['speed'])}/s")
    if "expected-handover-seconds" in info:
        words.append(f"runs at {there} in about "
                     f"{info['expected-handover-seconds']} s")
    if "expected-seconds" in info:
        words.append(f"all there in about {info['expected-seconds']} s")
    return ", ".join(words)


def summary(info: dict[str, Any], seconds: Optional[float]) -> str:
    """Return what came of a move, as its destination says."""
    words = [] if seconds is None else [f"{seconds:.1f} s"]
    for disk in info.get("disks", []):
        basis = disk.get("basis", {}).get("kind", "")
        words.append(f"{disk['name']}: {size(disk['sent'])} sent"
                     + (f" ({basis})" if basis else ""))
    return ", ".join(words)


class Line:
    """The last line on a terminal, or now and then one in a log."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.terminal = sys.stdout.isatty()
        self.shown = ""             # on a terminal, and not kept yet
        self.last = ("", 0.0)       # what was last logged of, and when

    def show(self, topic: str, text: str) -> None:
        """Show @text in place of what is shown now."""
        text = f"{self.name}: {text}"
        if self.terminal:
            print("\r" + text.ljust(len(self.shown)), end="", flush=True)
            self.shown = text
        elif (topic != self.last[0]
              or time.monotonic() > self.last[1] + LINE_SECONDS):
            self.last = (topic, time.monotonic())
            print(text, flush=True)

    def keep(self, text: str) -> None:
        """Print @text; it stays."""
        if self.shown:
            print()
            self.shown = ""
        print(f"{self.name}: {text}", flush=True)
