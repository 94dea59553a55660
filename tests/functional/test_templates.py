# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that is sent by reference to sets of pages that guests have."""

import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Optional

from dev.common import ROOT
from dev.rig.basics import TestFailure, require, wait_until
from dev.rig.image import MIB
from dev.rig.qmp import QmpError
from dev.rig.scene import Scene, begin, finish
from dev.rig.vm import Vm
from tests.functional.lib.refer import (expect_referenced, listening, memory,
                                        moved, of_kind, paused,
                                        source_with_cache)
from tests.functional.lib.registry import add, test

TEMPLATES: dict[str, Any] = {'memory_references': ['template'],
                             'memory_adaptive': False}
UUID_AT, UUID_SIZE = 32, 16
PAGE = 4096


def tool(*words: object) -> list[str]:
    """Run wsm-templates; return what it says, by lines."""
    done = subprocess.run([sys.executable, ROOT / 'scripts/wsm-templates',
                           *map(str, words)], check=False, text=True,
                          capture_output=True)
    require(done.returncode == 0, f'wsm-templates: {done.stderr}')
    return done.stdout.splitlines()


def scanned(vm: Vm) -> dict[str, Any]:
    """The state of a scan that has ended."""
    info: dict[str, Any] = {}

    def ended() -> bool:
        info.update(vm.qmp.cmd('query-wsm-scan'))
        return bool(info['state'] != 'running')

    wait_until(ended, f'{vm.name}: the scan of memory')
    return info


def scan(vm: Vm, command: str, **arguments: Any) -> None:
    """Go through the memory of @vm."""
    vm.qmp.cmd(command, bandwidth=0, **arguments)
    info = scanned(vm)
    require(info['state'] == 'completed' and info['done'] == info['total'],
            f'{command}: {info}')


def digest(vm: Vm) -> Path:
    path = vm.folder / 'digest'
    scan(vm, 'wsm-digest-memory', file=str(path))
    return path


def twin_of(path: Path) -> Path:
    """The digest of a guest that has just the same in memory."""
    data = bytearray(path.read_bytes())
    data[UUID_AT:UUID_AT + UUID_SIZE] = bytes(range(UUID_SIZE))
    twin = path.with_name('twin')
    twin.write_bytes(data)
    return twin


def make_set(vm: Vm, digests: list[Path], scope: str = 'acme') -> Path:
    """A set of what the digests have in common, from @vm; the pages."""
    wanted, pages = vm.folder / 'wanted', vm.folder / 'pages'
    tool('choose', '-o', wanted, '--scope', scope, *digests)
    scan(vm, 'wsm-export-pages', list=str(wanted), file=str(pages))
    said = tool('build', '--folder', vm.folder / 'sets', '--scope', scope,
                '--wanted', wanted, pages)
    path = Path(said[1])
    tool('check', path, path.with_suffix('.idx'))
    return path


def use(vm: Vm, *files: Path, scope: str = 'acme') -> None:
    vm.qmp.cmd('wsm-set-templates',
               sets=[{'file': str(file), 'scope': scope} for file in files])


def source_with_set(scene: Scene) -> tuple[Vm, Path]:
    """A source, and a set that has all its pages."""
    source = source_with_cache(scene)
    path = digest(source)
    return source, make_set(source, [path, twin_of(path)])


@test()
def templates(scene: Scene) -> None:
    """What is in a set that both sides have is not sent."""
    source, path = source_with_set(scene)
    destination = listening(scene, source, config=paused(scene))
    use(source, path.with_suffix('.idx'))
    use(destination, path)
    shown = destination.qmp.cmd('query-wsm-templates')
    require(shown[0]['id'] == path.stem and shown[0]['servable'],
            f'it is not {path.stem}: {shown}')
    begin(source, scene.uri(destination), **TEMPLATES)
    finish(source, destination)
    expect_referenced(source, destination)
    for vm in (source, destination):
        require(of_kind(vm, 'template')['referenced']
                == memory(vm)['referenced'], f'other kinds: {memory(vm)}')
        require(of_kind(vm, 'template')['missed'] == 0,
                f'a good set was missed: {memory(vm)}')
    moved(scene, source, destination)


@test()
def templates_siblings(scene: Scene) -> None:
    """A set of what two guests have in common, which booted apart."""
    source = source_with_cache(scene)
    other = scene.other_guest()
    sibling = scene.reopen('sibling', scene.new_images('sibling'), other)
    other.wait_ready()
    # They have the same UUID here
    path = make_set(sibling, [digest(source), twin_of(digest(sibling))])
    sibling.quit()
    destination = listening(scene, source, config=paused(scene))
    use(source, path.with_suffix('.idx'))
    use(destination, path)
    begin(source, scene.uri(destination), **TEMPLATES)
    finish(source, destination)
    expect_referenced(source, destination, MIB)
    require(of_kind(source, 'template')['referenced'] >= MIB,
            f'not from the set: {memory(source)}')
    moved(scene, source, destination)


def one_wrong_byte(path: Path) -> None:
    """Each page of the set has one bit that is another."""
    data = bytearray(path.read_bytes())
    count = int.from_bytes(data[24:32], 'big')
    for number in range(1, count + 1):
        data[len(data) - number * PAGE + number % PAGE] ^= 1
    path.write_bytes(data)


def truncated(path: Path) -> None:
    """It has become shorter."""
    with path.open('r+b') as file:
        file.truncate(path.stat().st_size // 2 // PAGE * PAGE + 1)


def removed(path: Path) -> None:
    """It was aged."""
    path.unlink()
    path.with_suffix('.idx').unlink()


def harmed(name: str, how: Callable[[Path], None], counter: Optional[str],
           summary: str) -> None:
    """Add a test in which something happens to a set that is in use."""
    def function(scene: Scene) -> None:
        source, path = source_with_set(scene)
        destination = listening(scene, source, config=paused(scene))
        use(source, path.with_suffix('.idx'))
        use(destination, path)
        how(path)
        begin(source, scene.uri(destination), **TEMPLATES)
        finish(source, destination)
        expect_referenced(source, destination, 1)
        there = of_kind(destination, 'template')
        if counter:
            require(there[counter] > 0, f'none is {counter}: {there}')
        else:
            require(there['missed'] == 0, f'something was missed: {there}')
        moved(scene, source, destination)

    function.__doc__ = summary
    add(name, function)


harmed('templates-wrong', one_wrong_byte, 'wrong',
       'Each page of the set is damaged: none of it gets into the guest.')
harmed('templates-truncated', truncated, 'missed',
       'The file becomes shorter after the destination has opened it.')
harmed('templates-removed', removed, None,
       'The set is removed; who has it open goes on with it.')


@test()
def templates_differ(scene: Scene) -> None:
    """Sets that only one side has, or in another scope, are not used."""
    source, path = source_with_set(scene)
    image = scene.folder / 'golden.raw'
    image.write_bytes(bytes([1]) * PAGE)
    other = Path(tool('build', '--folder', scene.folder / 'sets', '--scope',
                      'acme', '--from-image', image)[1])
    destination = listening(scene, source, config=paused(scene))
    use(source, path)
    destination.qmp.cmd('wsm-set-templates', sets=[
        {'file': str(other), 'scope': 'acme'},
        {'file': str(path), 'scope': 'public'},
        # It has not the pages
        {'file': str(path.with_suffix('.idx')), 'scope': 'acme'}])
    begin(source, scene.uri(destination), **TEMPLATES)
    finish(source, destination)
    require(memory(source)['referenced'] == 0,
            f'something was referred to: {memory(source)}')
    moved(scene, source, destination)


def refusal(vm: Vm, command: str, **arguments: Any) -> str:
    try:
        vm.qmp.cmd(command, **arguments)
    except QmpError as err:
        return str(err)
    raise TestFailure(f'{command} was not refused')


@test()
def templates_commands(scene: Scene) -> None:
    """Scans are one at a time, and can be cancelled; bad input is refused."""
    source = scene.source()
    path = source.folder / 'digest'
    require('No such file' in refusal(
        source, 'wsm-set-templates',
        sets=[{'file': '/no/such', 'scope': 'x'}]), 'no file')
    require("list of pages '/dev/null'" in refusal(
        source, 'wsm-export-pages', list='/dev/null', file=str(path)),
        'no list')
    require('No such file' in refusal(source, 'wsm-digest-memory',
                                      file='/no/such/folder/x'), 'no folder')
    source.qmp.cmd('wsm-digest-memory', file=str(path), bandwidth=MIB)
    require('a scan of the guest\'s memory runs' in refusal(
        source, 'wsm-digest-memory', file=str(path)), 'two at once')
    scene.guest.wait_progress()
    source.qmp.cmd('wsm-cancel-scan')
    info = scanned(source)
    require(info['state'] == 'cancelled' and info['done'] < info['total'],
            f'not cancelled: {info}')
    require(not any(path.read_bytes()), 'it looks as if it was whole')
    source.qmp.cmd('wsm-cancel-scan')
    digest(source)
    tool('table', path)
    source.qmp.cmd('wsm-digest-memory', file='/dev/full', bandwidth=0)
    require(scanned(source)['state'] == 'failed', 'it did not fail')
    destination = scene.destination()
    require('not all here' in refusal(destination, 'wsm-digest-memory',
                                      file=str(path)), 'nothing is there')
    # It must not hold QEMU up when that ends
    source.qmp.cmd('wsm-digest-memory', file=str(path), bandwidth=MIB)
    source.quit()
