# SPDX-License-Identifier: GPL-2.0-or-later
"""Templates whose pages a ring of memcached servers keeps."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Optional

from dev.rig.basics import require, wait_until
from dev.rig.image import MIB
from dev.rig.scene import Scene, begin, finish, query, wait_phase
from dev.rig.vm import Vm
from wsm.templates import sets
from tests.functional.lib import nodes, tls
from tests.functional.lib.nodes import Manner, Memcached, Place, SlowNode
from tests.functional.lib.refer import (expect_referenced, listening, memory,
                                        moved, of_kind, paused,
                                        source_with_cache)
from tests.functional.lib.registry import add, test
from tests.functional.test_templates import (TEMPLATES, digest, make_set,
                                             source_with_set, tool, twin_of,
                                             use)

PAGE = 4096
AT_ONCE = 2 * 128              # references of two channels
DEAD_SECONDS = 30
HEAD = 64                       # bytes of a digest's header
Harm = Callable[[list[Memcached], list[bytes]], None]


def hashes_of(path: Path) -> list[bytes]:
    """The list of a set."""
    with path.open('rb') as file:
        return list(sets.read_entries(file, sets.read_header(file)))


def use_ring(vm: Vm, path: Path, servers: Sequence[Place],
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


def every_fourth(path: Path) -> None:
    """Leave out most of the entries of a digest."""
    head, entries = path.read_bytes()[:HEAD], path.read_bytes()[HEAD:]
    few = [entries[at:at + 8] for at in range(0, len(entries), 32)]
    path.write_bytes(head[:24] + len(few).to_bytes(8, 'big') + head[32:]
                     + b''.join(few))


@test()
def ring_slower_than_link(scene: Scene) -> None:
    """The nodes answer in time, but the link is faster: that ends them.

    The disks take no second, so it is memory that tells how fast that is.
    """
    source = source_with_cache(scene)
    source.qmp.cmd('migrate-set-parameters', {'max-bandwidth': 128 * MIB})
    own = digest(source)
    twin = twin_of(own)
    every_fourth(twin)
    path = make_set(source, [own, twin])
    destination = listening(scene, source, config=paused(scene))
    with nodes.running(scene.folder) as servers, ExitStack() as stack:
        tool('load', path, *nodes.on_command_line(servers))
        use(source, path.with_suffix('.idx'))
        use_ring(destination, path, [
            stack.enter_context(closing(SlowNode(server, Manner(delay=0.06))))
            for server in servers])
        begin(source, scene.uri(destination), memory_references=['template'])
        finish(source, destination)
        expect_referenced(source, destination, MIB)
        there: dict[str, Any] = of_kind(destination, 'template')
        require(there.get('off') == 'slow', f'{there}, {shares(destination)}')
        moved(scene, source, destination)


def slow(name: str, summary: str, manner: Manner) -> None:
    """Add a test in which one of the nodes answers too slowly."""
    def function(scene: Scene) -> None:
        source, path = source_with_set(scene)
        destination = listening(scene, source, config=paused(scene))
        with (nodes.running(scene.folder) as servers,
              closing(SlowNode(servers[0], manner)) as node):
            tool('load', path, *nodes.on_command_line(servers))
            use(source, path.with_suffix('.idx'))
            use_ring(destination, path, [node, *servers[1:]])
            began = time.monotonic()
            begin(source, scene.uri(destination), **TEMPLATES)
            finish(source, destination)
            times = 1 + (time.monotonic() - began) // DEAD_SECONDS
            expect_referenced(source, destination)
            expect_sums(destination)
            shown = shares(destination)
            found = shown[node.name]
            require(node.asked > 0 and found['failures'] > 0
                    and found['hits'] < found['failed'], f'not slow: {found}')
            # Each time only those who were waiting just then have waited
            require(found['failures'] <= times and
                    found['failed'] <= found['failures'] * AT_ONCE,
                    f'it was asked on: {found}')
            require('in time' in found['error'], f'{found}')
            for other in servers[1:]:
                require(shown[other.name]['hits'] > 0, f'{shown}')
            require(of_kind(destination, 'template')['late'] == 0,
                    f'more than a second: {of_kind(destination, "template")}')
            moved(scene, source, destination)

    function.__doc__ = summary
    add(name, function)


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
# A node is given 200 ms
slow('ring-node-slow', 'A node answers after 300 ms: it is not asked on.',
     Manner(delay=0.3))
slow('ring-node-trickles', 'A node says its answer byte by byte.',
     Manner(piece=1, pause=0.01))
