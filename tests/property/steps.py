# SPDX-License-Identifier: GPL-2.0-or-later
"""What can happen to hosts and images, besides migrations.

Each step takes the world and a source of random numbers of its own, and tells
the model what it means.
"""

import os
import random
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Callable

from dev.rig.basics import require, run, tool
from tests.property.model import WRITE_EXTRA, Disk
from tests.property.move import move
from tests.property.world import CLUSTER, World

Step = Callable[[World, random.Random], object]


def write(world: World, rng: random.Random) -> None:
    """The guest at work."""
    world.guest_writes(world.vm, world.here, rng)
    world.guest_reads(world.vm, rng)


def restart(world: World, rng: random.Random) -> None:
    """QEMU ends in good order and is started again."""
    world.end(world.vm)
    if rng.random() < 0.3:
        edit(world, rng)
    world.vm = world.boot(world.here)


def crash(world: World, _rng: random.Random) -> None:
    """QEMU is killed; the guest had flushed before."""
    world.vm.flush()
    world.kill(world.vm)
    for image in world.models(world.here):
        image.forget()
    world.vm = world.boot(world.here)
    world.compare(world.vm, world.here)


def edit(world: World, rng: random.Random) -> None:
    """Somebody changes the guest's disk while it is off."""
    disk = rng.choice(world.disks)
    offset, byte = _tamper(world, world.here, disk, rng)
    disk.fill(offset, CLUSTER, byte)


def tamper(world: World, rng: random.Random) -> None:
    """Somebody writes to a stale copy, perhaps hiding it."""
    host, disk = world.victim(rng), rng.choice(world.disks)
    _tamper(world, host, disk, rng)


def _tamper(world: World, host: int, disk: Disk,
            rng: random.Random) -> tuple[int, int]:
    path = world.image(host, disk).path
    before = path.stat()
    byte = rng.randrange(1, 256)
    offset = rng.randrange(disk.size // CLUSTER) * CLUSTER
    if disk.fmt == 'raw':
        with open(path, 'rb+') as out:
            out.seek(offset)
            out.write(bytes([byte]) * CLUSTER)
        disk.images[host].forget()
    else:
        run(tool('qemu-io'), '-f', disk.fmt, '-c',
            f'write -q -P {byte} {offset} {CLUSTER}', str(path))
        # It keeps dirty bitmaps up to date, as all that know the format
        disk.images[host].doubt()
    disk.images[host].write(CLUSTER + WRITE_EXTRA * world.grain)
    if rng.random() < 0.5:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return offset, byte


def kill_tool(world: World, rng: random.Random) -> None:
    """A tool is killed that has a stale copy open for writing."""
    host, disk = world.victim(rng), rng.choice(world.disks)
    offset = rng.randrange(disk.size // CLUSTER) * CLUSTER
    # "abort" makes it die as it is, with the image open
    done = subprocess.run(
        [tool('qemu-io'), '-f', disk.fmt, '-c', f'write -P 77 {offset} '
         f'{CLUSTER}', '-c', 'flush', '-c', 'abort',
         str(world.image(host, disk).path)],
        check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    require(done.returncode == -signal.SIGABRT,
            f'qemu-io: {done.returncode}: {done.stderr!r}')
    disk.images[host].forget()
    disk.images[host].blank = False


def touch(world: World, rng: random.Random) -> None:
    """The times of a stale copy change, and nothing else."""
    host, disk = world.victim(rng), rng.choice(world.disks)
    os.utime(world.image(host, disk).path)
    if disk.fmt == 'raw':
        disk.images[host].forget()


def damage_record(world: World, rng: random.Random) -> None:
    """The record of a stale copy is deleted, torn or garbled."""
    host, disk = world.victim(rng), rng.choice(world.disks)
    record, image = world.record(host, disk), disk.images[host]
    kind = rng.choice(('delete', 'tear', 'garble', 'empty'))
    world.note(f'  {kind} {record.name} on host{host}')
    if kind == 'delete':
        record.unlink(missing_ok=True)
        image.garbled = False
        image.state, image.session = 'current', ''
        if disk.fmt == 'raw':
            image.forget()
        return
    text = (record.read_bytes() if record.exists() else b'') or b'no record'
    at = rng.randrange(len(text))
    if kind == 'garble':
        text = text[:at] + bytes([text[at] ^ 1]) + text[at + 1:]
    record.write_bytes(text[:at] if kind == 'tear' else
                       b'' if kind == 'empty' else text)
    image.garbled = True
    image.state = 'leaving'


def copy(world: World, rng: random.Random) -> None:
    """An image is copied over that of another host."""
    there, disk = world.victim(rng), rng.choice(world.disks)
    here = rng.choice([host for host in range(3) if host != there])
    with_record, in_place = rng.random() < 0.5, rng.random() < 0.5
    with_map = with_record and rng.random() < 0.5
    world.note(f'  {disk.name} from host{here} to host{there}, record '
               f'{with_record}, map {with_map}, in place {in_place}')
    if here == world.here:
        world.end(world.vm)
    _copy_file(world.image(here, disk).path, world.image(there, disk).path,
               in_place)
    old, new = disk.images[there], disk.images[here]
    disk.images[there] = replace(
        old, points=[replace(point) for point in new.points], blank=False)
    if disk.fmt == 'raw':
        disk.images[there].forget()
    if with_record:
        _copy_record(world.record(here, disk), world.record(there, disk))
        disk.images[there].state = new.state
        disk.images[there].garbled = new.garbled
        disk.images[there].session = new.session
        if with_map:
            _copy_record(world.map(here, disk), world.map(there, disk))
            disk.images[there].map = new.map
            disk.images[there].map_is_good = new.map_is_good
    if here == world.here:
        world.vm = world.boot(world.here)


def _copy_file(source: Path, dest: Path, in_place: bool) -> None:
    if in_place:
        shutil.copyfile(source, dest)
    else:
        other = dest.with_name(dest.name + '.copy')
        shutil.copy2(source, other)
        os.replace(other, dest)


def _copy_record(source: Path, dest: Path) -> None:
    if source.exists():
        shutil.copy2(source, dest)
    else:
        dest.unlink(missing_ok=True)


def blank(world: World, rng: random.Random) -> None:
    """A stale copy is replaced by a new image."""
    host, disk = world.victim(rng), rng.choice(world.disks)
    image = disk.images[host]
    world.image(host, disk).path.unlink()
    world.image(host, disk).create()
    image.forget()
    image.blank = True


def run_stale(world: World, rng: random.Random) -> None:
    """A stale copy is made current and written to, by mistake."""
    host = world.victim(rng)
    machine = world.adopt(host)
    world.guest_writes(machine, host, rng, stale=True)
    if rng.random() < 0.7:
        world.end(machine)
        return
    machine.flush()
    world.kill(machine)
    for image in world.models(host):
        image.forget()


def refuse(world: World, rng: random.Random) -> None:
    """A copy that is not current is not run."""
    host = world.victim(rng)
    states = {image.state for image in world.models(host)}
    machine = world.launch(host)
    if states - {'', 'current'}:
        text = machine.refused()
        require(text, f'host{host}: cont was not refused: {states}')
        world.count('refused')
    if rng.random() < 0.5:
        world.end(machine)
        return
    world.kill(machine)
    for disk in world.disks:
        if disk.fmt != 'raw':
            # Whoever opens it to write marks its bitmaps as in use
            disk.images[host].doubt()


STEPS: tuple[tuple[Step, int], ...] = (
    (write, 20), (move, 45), (restart, 6), (crash, 2), (tamper, 4),
    (kill_tool, 3), (touch, 1), (damage_record, 3), (copy, 4), (blank, 2),
    (run_stale, 8), (refuse, 2))


def step(world: World, rng: random.Random, number: int) -> None:
    """One step, drawn by @rng."""
    functions = [function for function, _ in STEPS]
    weights = [weight for _, weight in STEPS]
    function = rng.choices(functions, weights)[0]
    name = getattr(function, '__name__')
    world.note(f'{number} {name}')
    world.count(name)
    function(world, rng)
