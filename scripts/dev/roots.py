# SPDX-License-Identifier: GPL-2.0-or-later
"""Fresh Debian systems in folders, made by mmdebstrap, and runs in them."""

import re
import shlex
import shutil
from pathlib import Path
from typing import Callable

from dev import debian
from dev.common import Failure, output, run, say

# Debian releases that we test in
SUITES = ("bookworm", "trixie")

# What of the host's apt its way to the archive may depend on.
APT_SETTINGS = re.compile(
    r'^Acquire::(http|https|Check-Date|Check-Valid-Until|Retries)\b.* "[^"]')

# $1 is the root, $2 a folder to be seen there as /shared, or empty; what
# follows runs in it.  It has the host's devices and network but its own
# processes, which end with it.
ENTER = """
mount --make-rprivate /
mount --bind "$1" "$1"
cd "$1"
mount --rbind /dev dev
mount --rbind /sys sys
mount -t proc proc proc
mount -t tmpfs tmpfs run
if [ -n "$2" ]; then
    mkdir -p shared
    mount --bind "$2" shared
fi
root=$1
shift 2
exec env -i HOME=/root LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    chroot "$root" "$@"
"""


def sources(suite: str) -> list[str]:
    """Return apt's lines for the Debian release @suite."""
    keyring = next((path for path in debian.KEYRINGS if path.exists()), None)
    if keyring is None:
        raise Failure("install the package debian-archive-keyring")
    main, security = debian.mirrors()
    lines = [f"deb {main} {suite} main", f"deb {main} {suite}-updates main"]
    if security:
        lines.append(f"deb {security} {suite}-security main")
    return lines


def own_suite() -> str:
    """Return the name of the Debian release that runs here."""
    with open("/etc/os-release", encoding="utf-8") as release:
        for line in release:
            if line.startswith("VERSION_CODENAME="):
                return line.split("=")[1].strip().strip('"')
    raise Failure("/etc/os-release has no VERSION_CODENAME: is this Debian?")


def make(tree: Path, suite: str, packages: list[str],
         hooks: tuple[str, ...] = ()) -> None:
    """
    Make the folder @tree a Debian @suite with only @packages added.

    What is there is what Debian calls essential, and apt.  @hooks are
    mmdebstrap's options for commands that run meanwhile.
    """
    debian.install(["mmdebstrap"])
    if debian.as_root() != ["env"]:
        raise Failure("a Debian system in a folder can only be made by root")
    say(f"making a fresh Debian {suite}")
    shutil.rmtree(tree, ignore_errors=True)
    tree.parent.mkdir(parents=True, exist_ok=True)
    settings = [line for line in output(["apt-config", "dump"]).splitlines()
                if APT_SETTINGS.match(line)]
    # Of what mmdebstrap mounts nothing is left, even if it is killed
    run(["unshare", "--mount", "mmdebstrap", "--quiet", "--mode=root",
         "--format=directory", "--variant=apt",
         f"--include={','.join(packages)}",
         '--aptopt=APT::Install-Recommends "false"',
         "--dpkgopt=force-unsafe-io",
         *(f"--aptopt={line}" for line in settings), *hooks,
         suite, tree, *sources(suite)])


def make_once(tree: Path, wanted: str, maker: Callable[[], None]) -> None:
    """
    Have @maker make the folder @tree, unless it was made of what is @wanted.

    What it was made of is noted beside it, and not before it is whole.
    """
    stamp = tree.with_suffix(".made-of")
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return
    stamp.unlink(missing_ok=True)
    maker()
    stamp.write_text(wanted, encoding="utf-8")


def command(tree: Path, *words: object, shared: str = "") -> list[str]:
    """Return the command that runs @words in the root @tree."""
    return ["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork",
            "--kill-child", "sh", "-euc", ENTER, "sh", str(tree), str(shared),
            *map(str, words)]


def shell(folder: Path | str, *words: object) -> list[str]:
    """Return @words for command(), to be run in @folder of a root."""
    return ["sh", "-euc", f"cd {shlex.quote(str(folder))} && exec \"$@\"",
            "sh", *map(str, words)]
