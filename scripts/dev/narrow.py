# SPDX-License-Identifier: GPL-2.0-or-later
"""A PATH of only what is there on every machine on which our scripts ran.

That is the programs of the packages that Debian calls essential, of those
the user must have, and of those that our scripts install, each with what it
depends on.  A program that happens to be on this machine and would be missing
on a fresh one is then missing here, too.
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable

from dev import debian
from dev.common import BUILD

FOLDER = BUILD / "path"
PLACES = [Path(name) for name in
          ("/usr/local/bin", "/usr/bin", "/usr/sbin", "/bin", "/sbin")]
# What the user has before our scripts run: README.md
GIVEN = ["apt", "python3", "sudo"]

FIELDS = ("${db:Status-Status}|${Package}|${Essential}|${Provides}|"
          "${Pre-Depends}, ${Depends}\n")
NAME = re.compile(r"\s*([a-z0-9][a-z0-9.+-]*)")


@dataclass
class Package:
    """An installed package."""

    name: str
    essential: bool
    provides: list[str]      # names of virtual packages
    depends: list[list[str]]       # lists of names: one of each is needed


def names(text: str) -> list[str]:
    """Return the package names in a field: a (>= 1), b:any -> [a, b]."""
    return [found.group(1) for word in re.split(r"[,|]", text)
            if (found := NAME.match(word))]


def parse(text: str) -> list[Package]:
    """Return the Packages in what dpkg-query prints for FIELDS."""
    packages = []
    for line in text.splitlines():
        status, name, essential, provides, depends = line.split("|", 4)
        if status == "installed":
            packages.append(Package(
                name, essential == "yes", names(provides),
                [names(choice) for choice in depends.split(",")
                 if choice.strip()]))
    return packages


def closure(packages: list[Package], wanted: list[str]) -> set[str]:
    """
    Return the names of the essential packages and of those in @wanted.

    With what they depend on: of several choices the first that is installed,
    as that would have been installed anyway.
    """
    by_name = {package.name: package for package in packages}
    virtual: dict[str, list[str]] = {}
    for package in packages:
        for name in package.provides:
            virtual.setdefault(name, []).append(package.name)
    found, todo = set(), list(wanted)
    todo += [package.name for package in packages if package.essential]
    while todo:
        name = todo.pop()
        if name in found or name not in by_name:
            continue
        found.add(name)
        for choice in by_name[name].depends:
            for one in choice:
                if present := [one] * (one in by_name) or virtual.get(one):
                    todo += present
                    break
    return found


def programs(package_names: Iterable[str]) -> list[Path]:
    """Return the paths of all programs of these packages."""
    text = subprocess.run(["dpkg-query", "-L", *sorted(package_names)],
                          check=True, text=True, stdout=subprocess.PIPE).stdout
    owned = {Path(line) for line in text.splitlines()
             if Path(line).parent in PLACES}
    # Names that the alternatives system gives to one of these programs
    real = {os.path.realpath(path) for path in owned}
    given = {path for folder in PLACES if folder.is_dir()
             for path in folder.iterdir()
             if path.is_symlink()
             and os.readlink(path).startswith("/etc/alternatives/")
             and os.path.realpath(path) in real}
    return sorted(path for path in owned | given if path.exists())


def use() -> None:
    """Make PATH only that, for this program and all that it runs."""
    listing = subprocess.run(["dpkg-query", "-W", "-f", FIELDS], check=True,
                             text=True, stdout=subprocess.PIPE).stdout
    wanted = [*GIVEN, *debian.PACKAGES, *debian.CHECK_PACKAGES,
              *debian.BROWSER_PACKAGES, *debian.FUZZ_PACKAGES]
    partial = FOLDER.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for path in programs(closure(parse(listing), wanted)):
        if not (partial / path.name).exists():
            (partial / path.name).symlink_to(path)
    shutil.rmtree(FOLDER, ignore_errors=True)
    partial.rename(FOLDER)
    os.environ["PATH"] = str(FOLDER)
