# SPDX-License-Identifier: GPL-2.0-or-later
"""Templates whose pages a ring of memcached servers keeps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

from dev.rig.basics import require, wait_until
from dev.rig.scene import Scene, begin, finish, query, wait_phase
from dev.rig.vm import Vm
from wsm.templates import sets
from tests.functional.lib import nodes, tls
from tests.functional.lib.nodes import Memcached
from tests.functional.lib.refer import (expect_referenced, listening, memory,
                                        moved, of_kind, paused)
from tests.functional.lib.registry import add, test
from tests.functional.test_templates import (TEMPLATES, source_with_set, tool,
                                             use)

PAGE = 4096
Harm = Callable[[list[Memcached], list[bytes]], None]


def hashes_of(path: Path) -> list[bytes]:
    """The list of a set."""
    with path.open('rb') as file:
        return list(sets.read_entries(file, sets.read_header(file)))


def use_ring(vm: Vm, path: Path, servers: list[Memcached],
             **more: Any) -> None:
    """The destination has no more of the set than its list."""
    vm.qmp.cmd('wsm-set-templates',
               sets=[{'file': str(path.with_suffix('.list')),
                      'scope': 'acme'}],
               ring=nodes.for_qmp(servers, **more))
    shown = vm.qmp.cmd('query-wsm-templates')
    require(shown[0]['servable'], f'it cannot be served: {shown}')


def shares(vm: Vm) -> dict[str, dict[str, Any]]:
    """What query-wsm says of each node."""
    info: dict[str, Any] = query(vm)['memory']
    return {node['name']: node for node in info['ring']}


def total(vm: Vm, counter: str) -> int:
    return sum(node[counter] for node in shares(vm).values())


def expect_sums(destination: Vm) -> None:
    """Each page that was referred to was found, or missed."""
    there = of_kind(destination, 'template')
    require(there['referenced'] - there['missed']
            <= total(destination, 'hits') * PAGE,
            f'{there}, {shares(destination)}')
    for node in shares(destination).values():
        require(node['gets'] == node['hits'] + node['misses'] + node['failed'],
                f'{node}')


@test()
def ring(scene: Scene) -> None:
    """All is well: the same as with a file, and from all nodes."""
    source, path = source_with_set(scene)
    destination = listening(scene, source, config=paused(scene))
    with nodes.running(scene.folder) as servers:
        tool('load', path, *nodes.on_command_line(servers))
        use(source, path.with_suffix('.idx'))
        use_ring(destination, path, servers)
        begin(source, scene.uri(destination), **TEMPLATES)
        finish(source, destination)
        expect_referenced(source, destination)
        there = of_kind(destination, 'template')
        require(there['missed'] == 0, f'{there}, {shares(destination)}')
        expect_sums(destination)
        for node in shares(destination).values():
            require(node['hits'] > 0 and node['failures'] == 0, f'{node}')
        moved(scene, source, destination)


@test()
def ring_tls(scene: Scene) -> None:
    """The nodes want a certificate, and have one."""
    source, path = source_with_set(scene)
    destination = listening(scene, source, config=paused(scene))
    folder = tls.make_certificates(scene.folder / 'tls')
    tls.sign(folder, 'node', '/CN=localhost',
             'subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth\n'
             'keyUsage=digitalSignature,keyEncipherment\n')
    destination.qmp.cmd('object-add', {
        'qom-type': 'tls-creds-x509', 'id': 'ring0', 'dir': str(folder),
        'endpoint': 'client', 'verify-peer': True})
    with nodes.running(scene.folder, tls=folder) as servers:
        tool('load', path, '--tls', folder, *nodes.on_command_line(servers))
        use(source, path.with_suffix('.idx'))
        use_ring(destination, path, servers, tls_creds='ring0')
        begin(source, scene.uri(destination), **TEMPLATES)
        finish(source, destination)
        expect_referenced(source, destination)
        require(of_kind(destination, 'template')['missed'] == 0,
                f'{shares(destination)}')
        moved(scene, source, destination)


def harmed(name: str, summary: str, harm: Harm, late: Optional[str] = None,
           missed: bool = True,
           options: tuple[str, ...] = ()) -> None:
    """
    Add a test in which something happens to the nodes.

    @late: in this phase, else before the move.
    """
    def function(scene: Scene) -> None:
        source, path = source_with_set(scene)
        destination = listening(scene, source, config=paused(scene))
        with nodes.running(scene.folder, *options) as servers:
            tool('load', path, *nodes.on_command_line(servers))
            use(source, path.with_suffix('.idx'))
            use_ring(destination, path, servers)
            if not late:
                harm(servers, hashes_of(path.with_suffix('.list')))
            begin(source, scene.uri(destination), **TEMPLATES)
            if late:
                wait_phase(source, late)
                if late == 'ram-precopy':
                    wait_until(lambda: memory(destination)['referenced'] > 0,
                               'memory that is referred to')
                harm(servers, hashes_of(path.with_suffix('.list')))
            finish(source, destination)
            expect_referenced(source, destination, 1)
            there = of_kind(destination, 'template')
            if missed:
                require(there['missed'] > 0,
                        f'none was missed: {there}, {shares(destination)}')
            expect_sums(destination)
            moved(scene, source, destination)

    function.__doc__ = summary
    add(name, function)


def kill_one(servers: list[Memcached], _hashes: list[bytes]) -> None:
    servers[0].kill()


def kill_all(servers: list[Memcached], _hashes: list[bytes]) -> None:
    for server in servers:
        server.kill()


def stop_one(servers: list[Memcached], _hashes: list[bytes]) -> None:
    servers[1].stop()


def stop_all(servers: list[Memcached], _hashes: list[bytes]) -> None:
    for server in servers:
        server.stop()


def restart_one(servers: list[Memcached], _hashes: list[bytes]) -> None:
    servers[2].kill()
    servers[2].start()


def restart_all(servers: list[Memcached], _hashes: list[bytes]) -> None:
    for server in servers:
        server.kill()
        server.start()


def poison(servers: list[Memcached], hashes: list[bytes]) -> None:
    for server in servers:
        server.overwrite(hashes, b'\xff' * PAGE)


def shorten(servers: list[Memcached], hashes: list[bytes]) -> None:
    for server in servers:
        server.overwrite(hashes, b'\xff' * (PAGE - 1))


def nothing(_servers: list[Memcached], _hashes: list[bytes]) -> None:
    """It is as it is."""


harmed('ring-node-killed', 'A node dies while memory is sent.', kill_one,
       'ram-precopy', missed=False)
harmed('ring-killed', 'All nodes die while memory is sent.', kill_all,
       'ram-precopy', missed=False)
harmed('ring-killed-freeze', 'All nodes die in the freeze.', kill_all,
       'freeze', missed=False)
harmed('ring-node-stopped', 'A node does not answer.', stop_one, missed=False)
harmed('ring-stopped', 'No node answers.', stop_all)
harmed('ring-stopped-late', 'No node answers any more.', stop_all,
       'ram-precopy', missed=False)
harmed('ring-node-empty', 'A node has lost all that it had.', restart_one,
       missed=False)
harmed('ring-empty', 'The nodes have lost all that they had.', restart_all)
harmed('ring-away', 'There is no node.', kill_all)
harmed('ring-poisoned', 'Each page is another: none gets into the guest.',
       poison)
harmed('ring-odd', 'Nothing that is kept is a page.', shorten)
harmed('ring-evicted', 'The nodes have no room for all pages.', nothing,
       options=('-m', '2'))
