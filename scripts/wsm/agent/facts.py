# SPDX-License-Identifier: GPL-2.0-or-later
"""What a QEMU says of its guest: disks, devices, CPUs, its move."""

import asyncio
import os
import re
from typing import Any, Awaitable, Callable, Mapping, Optional

from wsm.agent import vmfind
from wsm.agent.monitor import Monitor, QmpFailed
from wsm.plan.draft import GuestDisk
from wsm.plan.fingerprint import Cpu, Device, DiskFact, Fingerprint
from wsm.plan.inventory import DiskUse

Call = Callable[..., Awaitable[Any]]

PERIPHERAL = re.compile(r"/machine/peripheral/([^/]+)")
SEEN = ("addr", "parent_bus", "mac", "queues", "num-queues", "num_queues",
        "mq", "serial")


def disk_name(entry: dict[str, Any]) -> str:
    """Return the name of a disk as query-wsm has it."""
    path = str(entry.get("qdev", ""))
    found = PERIPHERAL.match(path)
    if found:
        return found[1]
    if path and not path.startswith("/"):
        return path
    node = entry.get("inserted", {}).get("node-name", "")
    return str(entry.get("device") or node)


def absolute(path: str, cwd: str, files: list[str]) -> str:
    """
    Return an image's path from the root.

    A QEMU that has become a daemon stands in "/", and a relative name is
    from where it was started: then one of its open files ends with it.
    """
    if path.startswith("/"):
        return os.path.normpath(path)
    plain = os.path.normpath(os.path.join(cwd, path))
    ends = [each for each in files if each.endswith("/" + path.lstrip("./"))]
    return ends[0] if len(ends) == 1 and not os.path.exists(plain) else plain


async def guest_disks(call: Call, found: vmfind.Process) -> list[GuestDisk]:
    """Return the guest's disks; empty drives are left out."""
    files = vmfind.open_files(found.pid)
    disks = []
    for entry in await call("query-block"):
        inserted = entry.get("inserted")
        if not inserted:
            continue
        image = inserted.get("image", {})
        path = str(inserted.get("file") or image.get("filename", ""))
        disks.append(GuestDisk(
            disk_name(entry), path if ":" in path.split("/", maxsplit=1)[0]
            else absolute(path, found.cwd, files),
            str(inserted.get("drv", "raw")), int(image.get("virtual-size", 0)),
            bool(inserted.get("ro")),
            int(inserted.get("backing_file_depth", 0)) > 0))
    return disks


async def children(call: Call, path: str) -> list[tuple[str, str]]:
    """Return (name, type) of the devices at a place in QOM."""
    return [(str(each["name"]), str(each["type"])[6:-1])
            for each in await call("qom-list", {"path": path})
            if str(each["type"]).startswith("child<")]


async def property_of(call: Call, path: str, name: str) -> Optional[str]:
    """Return a property, None if there is no such."""
    try:
        return str(await call("qom-get", {"path": path, "property": name}))
    except QmpFailed:
        return None


async def devices(call: Call) -> list[Device]:
    """Return all devices that the user has asked for."""
    found = []
    for place in ("/machine/peripheral", "/machine/peripheral-anon"):
        for name, kind in await children(call, place):
            path = f"{place}/{name}"
            known = {str(each["name"])
                     for each in await call("qom-list", {"path": path})}
            values = [(key, await property_of(call, path, key))
                      for key in SEEN if key in known]
            found.append(Device(path, kind, tuple(
                (key, value) for key, value in values if value is not None)))
    return found


async def cpus(call: Call) -> list[Cpu]:
    """Return the virtual CPUs."""
    kinds = {each.get("qom-path"): str(each["type"])
             for each in await call("query-hotpluggable-cpus")
             if each.get("qom-path")}
    found = []
    for each in sorted(await call("query-cpus-fast"),
                       key=lambda entry: int(entry["cpu-index"])):
        path = str(each["qom-path"])
        words = []
        for name in ("feature-words", "filtered-features"):
            try:
                words.append(await call("qom-get", {"path": path,
                                                    "property": name}))
            except QmpFailed:
                words.append([])
        found.append(Cpu(
            tuple(sorted((str(key), int(value))
                         for key, value in each.get("props", {}).items())),
            kinds.get(path, ""),
            tuple(sorted((word_name(word), int(word["features"]))
                         for word in words[0] if word["features"])),
            tuple(sorted(f"{word_name(word)}={word['features']:#x}"
                         for word in words[1] if word["features"]))))
    return found


def word_name(word: dict[str, Any]) -> str:
    """Return the name of a CPUID word: leaf, subleaf, register."""
    return (f"{word['cpuid-input-eax']:#x}."
            f"{word.get('cpuid-input-ecx', 0)}.{word['cpuid-register']}")


async def fingerprint(call: Call) -> Fingerprint:
    """Return what must be the same in both QEMUs."""
    version = await call("query-version")
    numbers = version["qemu"]
    memory = await call("query-memory-size-summary")
    uuid = str((await call("query-uuid"))["UUID"])
    has = {each["capability"]
           for each in await call("query-migrate-capabilities")}
    disks = []
    for entry in await call("query-block"):
        inserted = entry.get("inserted")
        if inserted and not inserted.get("ro") and entry.get("qdev"):
            disks.append(DiskFact(str(entry["qdev"]), int(
                inserted["image"]["virtual-size"])))
    return Fingerprint(
        str(await call("qom-get", {"path": "/machine", "property": "type"})),
        int(memory["base-memory"]) + int(memory.get("plugged-memory", 0)),
        uuid, f"{numbers['major']}.{numbers['minor']}.{numbers['micro']}",
        str(version.get("package", "")), "whole-system" in has,
        tuple(await cpus(call)), tuple(await devices(call)),
        tuple(sorted(disks, key=lambda disk: disk.path)))


async def ram_sizes(call: Call) -> list[int]:
    """Return the bytes of each piece of the guest's memory."""
    found = [int(each["size"]) for each in await call("query-memdev")]
    memory = await call("query-memory-size-summary")
    return found or [int(memory["base-memory"])]


async def disk_uses(call: Call, written: Mapping[str, float],
                    content: Callable[[str, str], int]) -> list[DiskUse]:
    """
    Return sizes, and what was written since each sync point.

    @written: bytes per second, lately.  @content: of a file and its format,
    the bytes without internal snapshots, which do not move; 0: not known.
    """
    points = {str(image["name"]): {str(point["id"]): int(point["changed"])
                                   for point in image["points"]}
              for image in (await call("query-wsm"))["images"]
              if not image.get("problem")}
    found = []
    for entry in await call("query-block"):
        inserted = entry.get("inserted")
        if not inserted or inserted.get("ro") or not entry.get("qdev"):
            continue
        name = disk_name(entry)
        image = inserted["image"]
        allocated = int(image.get("actual-size", image["virtual-size"]))
        if image.get("snapshots"):
            now = await asyncio.to_thread(content, str(image["filename"]),
                                          str(image["format"]))
            allocated = min(allocated, now or allocated)
        found.append(DiskUse(
            name, int(image["virtual-size"]), allocated,
            written.get(name, 0.0), points.get(name, {})))
    return found


async def move_state(monitor: Monitor) -> tuple[dict[str, Any],
                                                dict[str, Any]]:
    """Return (query-wsm, query-migrate)."""
    return (await monitor.call("query-wsm"),
            await monitor.call("query-migrate"))


def progress(info: dict[str, Any],
             migration: dict[str, Any]) -> tuple[int, ...]:
    """
    Return what changes only while the link carries something.

    What remains or is missing changes with what the guest writes, too.
    """
    return (*(int(disk.get(key, 0)) for disk in info.get("disks", [])
              for key in ("sent", "zero", "compared")),
            int(migration.get("ram", {}).get("transferred", 0)),
            len(info.get("phases", [])))
