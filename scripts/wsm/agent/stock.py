# SPDX-License-Identifier: GPL-2.0-or-later
"""Images of this host: which one a disk begins with, and room for it.

An image that is there is never overwritten unless its own record says that
it is an old copy: a stale one, or one of an attempt that broke off.
"""

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from wsm import info
from wsm.agent.config import Config
from wsm.plan import spec
from wsm.plan.inventory import OLD, Copy, Pool, human, too_full

TIMEOUT = 60.0
# The name of a sync point's bitmap: order, size of the disk, id
POINT = re.compile(r"wsm-\d{10}-\d+-([0-9a-f-]{36})(?:-rest)?")


class NoImage(Exception):
    """An image that cannot be used or made; the text has the remedy."""


@dataclass(frozen=True)
class Choice:
    """Where a disk's image is, and what it is before the move."""

    disk: str
    path: str
    format: str
    kind: str           # "old", "partial", "template", "blank"
    made: bool          # by us, now


def path_of(config: Config, vm: spec.Spec, disk: str) -> str:
    """Return where the image of a disk is on this host."""
    described = vm.disk[disk]
    given = described.path_at.get(config.host)
    if given:
        return given
    pool = config.pool.get(described.pool)
    if pool is None:
        raise NoImage(f"disk {disk}: this host has no pool {described.pool}")
    suffix = described.format_on(config.host)
    return f"{pool.path.rstrip('/')}/{vm.name}/{disk}.{suffix}"


def pools(config: Config) -> dict[str, Pool]:
    """Return the pools with their space."""
    found = {}
    for name, pool in config.pool.items():
        try:
            space = os.statvfs(pool.path)
        except OSError:
            continue
        found[name] = Pool(space.f_bavail * space.f_frsize,
                           space.f_blocks * space.f_frsize, pool.reserve,
                           os.stat(pool.path).st_dev)
    return found


def look(config: Config, path: str) -> Optional[dict[str, Any]]:
    """Return what wsm-info knows of an image, None if there is none."""
    if not os.path.lexists(path):
        return None
    image = info.Image(path)
    image.read(config.qemu_img)
    return image.for_machines()


def in_use(facts: dict[str, Any]) -> bool:
    """Return whether a QEMU has the image open."""
    return bool(facts.get("in-use"))


def choose(config: Config, vm: spec.Spec, disk: str) -> Choice:
    """Return what the image of a disk begins with; change nothing."""
    described = vm.disk[disk]
    path = path_of(config, vm, disk)
    image_format = described.format_on(config.host)
    facts = look(config, path)
    if facts is None:
        kind = "template" if template(config, described) else "blank"
        return Choice(disk, path, image_format, kind, True)
    if path.startswith("/dev/"):
        return Choice(disk, path, image_format, "old", False)
    if in_use(facts):
        raise NoImage(f"disk {disk}: {path} is open in another QEMU")
    if facts["state"] not in OLD:
        raise NoImage(
            f"disk {disk}: {path} is there, and nothing says that it may be "
            f"overwritten (state {facts['state'] or 'not known'}). Move it "
            "away, or say with path_at where the image shall be")
    if facts.get("disk-size") != described.size:
        # The disk has grown since: an old copy as it was is of no use
        return Choice(disk, path, image_format, "blank", True)
    return Choice(disk, path, image_format, "partial" if facts["state"]
                  == "incomplete" else "old", False)


def template(config: Config, disk: spec.Disk) -> Optional[Path]:
    """Return the image that a disk may begin with."""
    pool = config.pool.get(disk.pool)
    if not disk.template or pool is None:
        return None
    for suffix in ("raw", "qcow2", "img"):
        path = Path(pool.path) / "templates" / f"{disk.template}.{suffix}"
        if path.is_file():
            return path
    return None


def run(config: Config, *words: str) -> str:
    """Run qemu-img; raise NoImage with what it says."""
    try:
        done = subprocess.run([config.qemu_img, *words], check=False,
                              capture_output=True, text=True, timeout=TIMEOUT,
                              stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError) as error:
        raise NoImage(f"{config.qemu_img}: {error}") from error
    if done.returncode:
        raise NoImage(f"{config.qemu_img} {words[0]}: {done.stderr.strip()}")
    return done.stdout


def make(config: Config, vm: spec.Spec, choice: Choice) -> None:
    """Make the image that choose() has promised."""
    if not choice.made:
        return
    described = vm.disk[choice.disk]
    for old in (choice.path, os.path.realpath(choice.path) + ".wsm"):
        Path(old).unlink(missing_ok=True)
    Path(choice.path).parent.mkdir(parents=True, exist_ok=True)
    found = template(config, described)
    if choice.kind == "template" and found:
        run(config, "convert", "-O", choice.format, str(found), choice.path)
        run(config, "resize", "-q", "-f", choice.format, choice.path,
            str(described.size))
        return
    run(config, "create", "-q", "-f", choice.format, choice.path,
        str(described.size))
    if choice.format == "raw" and described.size % 512:
        os.truncate(choice.path, described.size)    # it was rounded up


def allocated(path: str) -> int:
    """Return the bytes that an image takes, 0 if it is not there."""
    try:
        return os.stat(path).st_blocks * 512
    except OSError:
        return 0


def room(config: Config, vm: spec.Spec, needs: dict[str, int]) -> list[str]:
    """Return which pools are too full for @needs: bytes of each disk."""
    by_pool: dict[str, int] = {}
    for disk, needed in needs.items():
        if not vm.disk[disk].path_at.get(config.host):
            path = path_of(config, vm, disk)
            base = template(config, vm.disk[disk])
            if base and not os.path.lexists(path):
                needed = max(needed, allocated(str(base)))      # copied first
            more = max(0, needed - allocated(path))
            pool = vm.disk[disk].pool
            by_pool[pool] = by_pool.get(pool, 0) + more
    return [f"pool {' and '.join(names)}: {human(needed)} are needed, "
            f"{human(pool.usable)} are free besides the reserve"
            for names, needed, pool in too_full(by_pool, pools(config))]


def copies(config: Config, vm: spec.Spec) -> list[Copy]:
    """Return the images at rest that this host has of a VM."""
    found = []
    for disk in vm.disk:
        try:
            path = path_of(config, vm, disk)
        except NoImage:
            continue
        facts = look(config, path)
        if facts is None or in_use(facts) or not facts["state"]:
            continue
        points: dict[str, Optional[int]] = {
            point["id"]: point["since-bytes"]
            for point in facts.get("points", [])}
        total = 0       # a point counts what was written until the next
        for point in reversed(list(points)):
            total += points[point] or 0
            points[point] = total
        kept = bitmap_points(facts)
        points.update(dict.fromkeys(kept))
        found.append(Copy(
            vm.name, disk, path, facts["state"], int(facts.get("time", 0)),
            allocated(path), int(facts.get("disk-size") or 0), points,
            bool(kept) or bool(facts.get("stamp", {}).get("fits"))))
    return found


def bitmap_points(facts: dict[str, Any]) -> list[str]:
    """Return the sync points in a qcow2 image that was closed cleanly."""
    found = [(POINT.fullmatch(bitmap["name"]), bitmap["flags"])
             for bitmap in facts.get("bitmaps", [])]
    return [match[1] for match, flags in found
            if match and "in-use" not in flags]


def content(config: Config, path: str, image_format: str) -> int:
    """
    Return the bytes of what an image holds now; 0 if not known.

    As qcow2: raw would be all of the disk.
    """
    try:
        return int(json.loads(run(config, "measure", "-U", "--output=json",
                                  "-f", image_format, "-O", "qcow2", path)
                              )["required"])
    except (NoImage, KeyError, ValueError):
        return 0


def img_info(config: Config, path: str) -> dict[str, Any]:
    """Return what qemu-img says of an image."""
    found: dict[str, Any] = json.loads(run(config, "info", "-U",
                                           "--output=json", path))
    return found
