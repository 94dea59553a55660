# SPDX-License-Identifier: GPL-2.0-or-later
"""Three hosts with an image of each disk, and the guest on one of them."""

import random
from pathlib import Path

from dev.rig.basics import TestFailure, require, run, tool
from dev.rig.image import MIB, Image
from tests.functional.lib.mapfile import map_path
from tests.property.machine import Machine
from tests.property.model import (SECTOR, WRITE_EXTRA, Disk, ImageModel,
                                  first_difference)

HOSTS = 3
CLUSTER = 65536                 # of qcow2, so that discards reach all of it
RAW_SIZES = (8 * MIB + 3 * SECTOR, 12 * MIB + SECTOR, 10 * MIB + 4096)
QCOW2_SIZES = (8 * MIB + 3 * SECTOR, 16 * MIB, 9 * MIB + 7 * SECTOR)
GRAINS = (4096, 65536, 1 * MIB)


class World:
    """All of it; close() ends what runs."""

    def __init__(self, folder: Path, seed: str) -> None:
        rng = random.Random(f'{seed}:world')
        self.folder = folder
        self.disks = [Disk(0, 'raw', rng.choice(RAW_SIZES), HOSTS),
                      Disk(1, 'qcow2', rng.choice(QCOW2_SIZES), HOSTS)]
        # The largest block in use, which a write of one byte changes
        self.grains = rng.choice((GRAINS[:1], GRAINS[:2], GRAINS))
        self.grain = max(*self.grains, CLUSTER)
        self.here = 0
        self.likely = 0         # where the guest shall go next
        self.history: list[str] = []
        self.counts: dict[str, int] = {}
        self.maps: dict[int, bytes] = {}        # of disks, left by a crash
        self._machines: list[Machine] = []
        for host in range(HOSTS):
            (folder / f'host{host}').mkdir()
            for disk in self.disks:
                self.image(host, disk).create()
        self.vm = self.boot(0)

    def close(self) -> None:
        for machine in self._machines:
            machine.close()

    def machines(self) -> list[Machine]:
        return self._machines

    def note(self, text: str) -> None:
        """What is being done, for people who look for a bug."""
        self.history.append(text)
        with open(self.folder / 'history', 'a', encoding='utf-8') as out:
            print(text, file=out)

    def count(self, what: str, number: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + number

    # Images

    def image(self, host: int, disk: Disk) -> Image:
        return Image(self.folder / f'host{host}' / f'{disk.name}.{disk.fmt}',
                     disk.fmt, disk.size)

    def record(self, host: int, disk: Disk) -> Path:
        path = self.image(host, disk).path
        return path.with_name(path.name + '.wsm')

    def map(self, host: int, disk: Disk) -> Path:
        return map_path(self.image(host, disk))

    def models(self, host: int) -> list[ImageModel]:
        return [disk.images[host] for disk in self.disks]

    def others(self) -> list[int]:
        return [host for host in range(HOSTS) if host != self.here]

    def victim(self, rng: random.Random) -> int:
        """Whose images something is done to; the guest may go there."""
        self.likely = rng.choice(self.others())
        return self.likely

    # QEMUs

    def arrived(self, host: int, machine: Machine) -> None:
        """The guest is on @host now."""
        self.likely, self.here, self.vm = self.here, host, machine
        self.count('moves')

    def launch(self, host: int, incoming: bool = False) -> Machine:
        """A QEMU on the images of @host, paused."""
        name = f'q{len(self._machines)}-host{host}'
        images = [self.image(host, disk) for disk in self.disks]
        machine = Machine(name, self.folder / name, images, incoming)
        self._machines.append(machine)
        machine.start()
        self.count('QEMUs')
        return machine

    def boot(self, host: int) -> Machine:
        """A QEMU whose guest runs; the images must be current."""
        machine = self.launch(host)
        machine.run()
        self.taken(host)
        return machine

    def taken(self, host: int) -> None:
        for image in self.models(host):
            image.taken()
            image.map = ''      # if one is left, it goes

    def may_not_write(self, host: int, sure: bool) -> bool:
        """Do images there keep a migration from writing to them?

        One that is leaving does not if the source descends from that handover,
        by its sync points.  If it may have that one: not unless @sure.
        """
        return any(image.arriving or image.garbled
                   or image.state == 'leaving' and disk.point(image.session)
                   not in disk.images[self.here].ids(sure=not sure)
                   for disk in self.disks for image in [disk.images[host]])

    def make_current(self, machine: Machine, host: int) -> None:
        """Type wsm-adopt, which must be told to give up what is missing."""
        arriving = [image for image in self.models(host) if image.arriving]
        if not arriving:
            machine.qmp.cmd('wsm-adopt')
        else:
            good = all(image.map_is_good for image in arriving)
            machine.qmp.expect_error('wsm-adopt', 'came here from')
            machine.qmp.cmd('wsm-adopt', missing='zero' if good else 'stale')
            self.count('adopted with blocks missing')
        self.adopted(host)

    def adopt(self, host: int) -> Machine:
        """A QEMU on images that are stale, made current again."""
        machine = self.launch(host)
        states = {image.state for image in self.models(host)}
        text = machine.refused()
        if '' not in states:
            if states != {'current'}:
                require(text, f'host{host}: cont was not refused, the images '
                        f'are {states}')
            else:
                require(not text, f'host{host}: cont was refused: {text}')
        if machine.status() != 'running':
            self.make_current(machine, host)
            machine.run()
        else:
            self.adopted(host)
        return machine

    def adopted(self, host: int) -> None:
        """Its images are current, as wsm-adopt was typed."""
        self.taken(host)
        for image in self.models(host):
            if image.state == 'incomplete':
                # It does not descend from the guest that was to come
                image.forget()
            elif not image.state:
                image.doubt()
            image.become_current()

    def end(self, machine: Machine) -> None:
        """End it in good order."""
        machine.quit()
        machine.close()

    def kill(self, machine: Machine) -> None:
        machine.died()
        machine.close()

    # The guest's disk

    def guest_writes(self, vm: Machine, host: int, rng: random.Random,
                     stale: bool = False, number: int = 0) -> int:
        """Some writes on @host; @stale: not by the guest, the model's data
        stays.  Returns how many bytes may be in blocks that they touch."""
        total = 0
        for _ in range(number or rng.choice((1, 2, 5, 12))):
            disk = rng.choice(self.disks)
            count = self._guest_write(vm, disk, rng, stale)
            disk.images[host].write(count)
            total += count
        return total

    def _guest_write(self, vm: Machine, disk: Disk, rng: random.Random,
                     stale: bool) -> int:
        kind = rng.choice(('write', 'write', 'write', 'zero', 'discard'))
        align = self.grain if kind == 'discard' else SECTOR
        offset, count = self._range(disk, rng, align)
        byte = rng.randrange(1, 256) if kind == 'write' else 0
        line = {'write': f'write -q -P {byte}',
                'zero': f'write -q -z {rng.choice(("", "-u"))}',
                'discard': 'discard -q'}[kind]
        vm.io(disk.name, f'{line} {offset} {count}')
        if not stale:
            disk.fill(offset, count, byte)
        self.count('writes')
        return count + WRITE_EXTRA * self.grain

    def _range(self, disk: Disk, rng: random.Random,
               align: int) -> tuple[int, int]:
        """Offset and length: often at the same places, often at the end."""
        most = rng.choice((SECTOR, 4096, 65536, 262144))
        offset = rng.choice((rng.randrange(disk.size),
                             rng.randrange(4) * 2 * MIB + rng.randrange(65536),
                             disk.size - 1 - rng.randrange(8192)))
        offset -= offset % align
        count = max(align, rng.randint(1, most) // align * align)
        return offset, min(count, disk.size - offset)

    def guest_writes_much(self, vm: Machine, host: int,
                          rng: random.Random) -> int:
        """So that a slow migration has something to do for seconds.

        Returns how many bytes may be in blocks that it touches.
        """
        for disk in self.disks:
            byte, offset = rng.randrange(1, 256), rng.randrange(7) * MIB
            vm.io(disk.name, f'write -q -P {byte} {offset} {MIB}')
            disk.fill(offset, MIB, byte)
            disk.images[host].write(MIB + WRITE_EXTRA * self.grain)
        return len(self.disks) * (MIB + WRITE_EXTRA * self.grain)

    def guest_reads(self, vm: Machine, rng: random.Random) -> None:
        """Through QEMU, as the guest would; must be what the model says."""
        for _ in range(rng.choice((1, 3, 8))):
            disk = rng.choice(self.disks)
            offset, count = self._range(disk, rng, SECTOR)
            count = disk.run_at(offset, count) // SECTOR * SECTOR
            vm.io(disk.name,
                  f'read -q -P {disk.data[offset]} {offset} {count}')
            self.count('reads')

    def compare(self, vm: Machine, host: int) -> None:
        """Each byte of each disk."""
        was_running = vm.status() == 'running'
        vm.qmp.cmd('stop')
        vm.flush()
        for disk in self.disks:
            text = first_difference(self._content(host, disk),
                                    bytes(disk.data))
            if text:
                raise TestFailure(f'host{host}, {disk.name}: {text}')
            self.count('bytes compared', disk.size)
            disk.track(False)
        if was_running:
            vm.run()

    def _content(self, host: int, disk: Disk) -> bytes:
        path = self.image(host, disk).path
        if disk.fmt != 'raw':
            raw = self.folder / 'content'
            run(tool('qemu-img'), 'convert', '-U', '-f', disk.fmt, '-O', 'raw',
                str(path), str(raw))
            path = raw
        return path.read_bytes()
