# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that is kept where a guest was, for when it comes back."""

import stat
from pathlib import Path
from typing import Any

from dev.rig.basics import require, run, wait_until
from dev.rig.image import MIB
from dev.rig.scene import Scene, begin, finish, query
from dev.rig.vm import Vm
from tests.functional.lib.moves import (LOAD, end, expect_moved,
                                        expect_unharmed)
from tests.functional.lib.refer import (expect_referenced, expect_same_memory,
                                        listening, memory, moved, of_kind,
                                        paused, source_with_cache, steady)
from tests.functional.lib.registry import test

KEEP: dict[str, Any] = {'keep_memory': True}
IMAGE: dict[str, Any] = {'memory_references': ['image'],
                         'memory_adaptive': False}
# At its place in what the guest has of memory: firmware, kernel, its disk
LEAST = 12 * MIB
# Some ten are needed; without an end it is thousands
MANY_ROUNDS = 200


def kept_file(vm: Vm) -> Path:
    path = vm.images[0].path
    return path.with_name(f'{path.name}.wsm-memory')


def files(vm: Vm) -> list[str]:
    """What lies beside the images of @vm of kept memory."""
    return sorted(path.name for path in vm.images[0].path.parent.iterdir()
                  if '.wsm-memory' in path.name)


def wait_kept(vm: Vm, state: str = 'kept') -> dict[str, Any]:
    """Wait until the memory of the guest that left @vm is, or is not, kept."""
    def done() -> dict[str, Any]:
        info: dict[str, Any] = query(vm).get('kept-memory', {})
        return info if info.get('state', 'writing') != 'writing' else {}

    info = wait_until(done, f'{vm.name}: memory is kept')
    require(info['state'] == state, f'{vm.name}: {info}')
    return info


def away(scene: Scene, **options: Any) -> tuple[Vm, Vm]:
    """A guest that has moved, and works on at the destination."""
    here = source_with_cache(scene)
    scene.guest.start(**LOAD)
    there = listening(scene, here)
    begin(here, scene.uri(there), **options)
    finish(here, there)
    expect_moved(scene, here, there)
    return here, there


def back(scene: Scene, there: Vm, here: Vm, **options: Any) -> Vm:
    """The way back, to a QEMU in which the guest is paused then."""
    steady(there)
    again = listening(scene, there, config=paused(scene), images=here.images,
                      name='destination-2', **options)
    begin(there, scene.uri(again), **IMAGE)
    return again


def arrive(scene: Scene, there: Vm, again: Vm, least: int = LEAST) -> None:
    finish(there, again)
    require(of_kind(there, 'image')['referenced'] >= least,
            f'{memory(there)} is less than {least}')
    expect_referenced(there, again, least)
    moved(scene, there, again)


@test()
def memory_kept(scene: Scene) -> None:
    """There and back: what was there before is not sent."""
    here, there = away(scene, **KEEP)
    info = wait_kept(here)
    path = kept_file(here)
    require(info['file'] == str(path) and info['bytes'] > LEAST, f'{info}')
    require(stat.S_IMODE(path.stat().st_mode) == 0o600, 'others can read it')
    require(path.stat().st_blocks * 512 < here.config.memory * MIB,
            'it is not sparse')
    here.quit()
    again = back(scene, there, here)
    finish(there, again)
    sent = memory(there)
    require(sent['packed'] < info['bytes'] // 4,
            f'{sent} of {info["bytes"]} bytes')
    require(sent['missed'] == 0, f'{sent}')
    arrive(scene, there, again)
    require(not files(again), f'{files(again)} is left')


@test()
def memory_kept_converges(scene: Scene) -> None:
    """A guest that writes is stopped soon: what is left goes packed."""
    here, there = away(scene, **KEEP)
    wait_kept(here)
    # So little at a time that the pages as they are would not fit
    there.qmp.cmd('migrate-set-parameters', {'max-bandwidth': 20 * MIB,
                                             'downtime-limit': 5})
    again = listening(scene, there, images=here.images, name='destination-2')
    scene.guest.start(writers=2, rate=3000)
    begin(there, scene.uri(again), **IMAGE)
    finish(there, again)
    rounds = there.migration()['ram']['dirty-sync-count']
    require(rounds < MANY_ROUNDS, f'memory was gone through {rounds} times')
    expect_moved(scene, there, again)
    end(there, again)


@test()
def memory_kept_not(scene: Scene) -> None:
    """Without the option there is no file, and nothing is found."""
    here, there = away(scene)
    require('kept-memory' not in query(here), 'memory is kept')
    here.quit()
    require(not files(here), f'{files(here)} is left')
    again = back(scene, there, here)
    finish(there, again)
    require(of_kind(there, 'image')['referenced'] == 0, f'{memory(there)}')
    moved(scene, there, again)


@test()
def memory_kept_quit(scene: Scene) -> None:
    """QEMU is told to end at once: the file is there all the same."""
    here, there = away(scene, **KEEP)
    here.quit()
    require(files(here) == [kept_file(here).name], f'{files(here)}')
    again = back(scene, there, here)
    arrive(scene, there, again)


@test()
def memory_kept_elsewhere(scene: Scene) -> None:
    """In a file that the user names, at both times."""
    path = scene.folder / 'elsewhere'
    here, there = away(scene, **KEEP, keep_memory_file=str(path))
    wait_kept(here)
    here.quit()
    require(path.exists() and not files(here), f'{files(here)}')
    again = back(scene, there, here, keep_memory_file=str(path))
    arrive(scene, there, again)
    require(not path.exists(), 'it is left')


@test()
def memory_kept_cancelled(scene: Scene) -> None:
    """A way back that is cancelled leaves the file for the next one."""
    here, there = away(scene, **KEEP)
    wait_kept(here)
    here.quit()
    again = back(scene, there, here)
    wait_until(lambda: of_kind(there, 'image')['referenced'] > 0,
               'older memory is referred to')
    there.qmp.cmd('migrate_cancel')
    there.wait_migration('cancelled')
    expect_unharmed(scene, there)
    again.close()
    require(files(here) == [kept_file(here).name], f'{files(here)}')
    last = listening(scene, there, config=paused(scene), images=here.images,
                     name='destination-3')
    begin(there, scene.uri(last), **IMAGE)
    arrive(scene, there, last)
    require(not files(last), f'{files(last)} is left')


@test()
def memory_kept_adopted(scene: Scene) -> None:
    """Who goes on with the copy that was left has no use for it."""
    here, there = away(scene, **KEEP)
    wait_kept(here)
    here.quit()
    there.quit()
    adopted = scene.reopen('adopted', here.images, scene.other_guest(),
                           paused=True)
    require(bool(files(here)), 'there is no file')
    adopted.qmp.cmd('wsm-adopt')
    require(not files(here), f'{files(here)} is left')


def change(path: Path) -> None:
    """Damage each page: the tag is wrong, whatever the print was."""
    with path.open('r+b') as file:
        for offset in range(2 * MIB, path.stat().st_size, 4096):
            file.seek(offset)
            byte = file.read(1)
            file.seek(offset)
            file.write(bytes([byte[0] ^ 1]))


@test()
def memory_kept_damaged(scene: Scene) -> None:
    """A file with a wrong byte in each page costs pages, nothing else."""
    here, there = away(scene, **KEEP)
    wait_kept(here)
    here.quit()
    change(kept_file(here))
    again = back(scene, there, here)
    finish(there, again)
    require(of_kind(again, 'image')['wrong'] > 0, f'{memory(again)}')
    moved(scene, there, again)


@test()
def memory_kept_truncated(scene: Scene) -> None:
    """The file becomes shorter while the destination has it open."""
    here, there = away(scene, **KEEP)
    wait_kept(here)
    here.quit()
    path = kept_file(here)
    again = back(scene, there, here)
    wait_until(lambda: of_kind(there, 'image')['referenced'] > 0,
               'older memory is referred to')
    with path.open('r+b') as file:
        file.truncate(MIB)
    finish(there, again)
    require(memory(again)['missed'] > 0, f'{memory(again)}')
    moved(scene, there, again)


@test()
def memory_kept_of_another(scene: Scene) -> None:
    """The file of another VM is not used, and the log says so."""
    here, there = away(scene, **KEEP)
    wait_kept(here)
    here.quit()
    path = kept_file(here)
    # The session: this guest was never part of it
    with path.open('r+b') as file:
        file.seek(16)
        file.write(bytes(16))
    again = back(scene, there, here)
    finish(there, again)
    require(of_kind(there, 'image')['referenced'] == 0, f'{memory(there)}')
    require('is the memory of another guest' in again.stderr(),
            f'no reason: {again.stderr()}')
    moved(scene, there, again)


@test()
def memory_kept_no_space(scene: Scene) -> None:
    """A file that cannot be written is a warning; the guest has moved."""
    folder = scene.folder / 'small'
    folder.mkdir()
    run('mount', '-t', 'tmpfs', '-o', 'size=8m', 'none', str(folder))
    try:
        here, there = away(scene, **KEEP,
                           keep_memory_file=str(folder / 'memory'))
        info = wait_kept(here, 'failed')
        require('No space left' in info['error'], f'{info}')
        require('memory is not kept' in here.stderr(), here.stderr())
        require(not list(folder.iterdir()), 'something is left')
        here.quit()
        there.quit()
    finally:
        run('umount', str(folder))


@test()
def memory_kept_rebooted(scene: Scene) -> None:
    """Another boot of the guest comes back: what it has alike is used."""
    here, there = away(scene, **KEEP)
    wait_kept(here)
    here.quit()
    there.quit()
    guest = scene.other_guest()
    rebooted = scene.reopen('rebooted', there.images, guest)
    guest.wait_ready()
    steady(rebooted)
    again = listening(scene, rebooted, config=paused(scene),
                      images=here.images, name='destination-2')
    begin(rebooted, scene.uri(again), **IMAGE)
    finish(rebooted, again)
    expect_referenced(rebooted, again, 1)
    expect_same_memory(rebooted, again)
    require(not files(again), f'{files(again)} is left')
    end(rebooted, again)
