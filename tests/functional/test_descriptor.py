# SPDX-License-Identifier: GPL-2.0-or-later
"""The source is given a file descriptor, as libvirt does it."""

import os
import socket
from typing import Callable, Iterator, Optional

from dev.rig.basics import require, wait_until
from dev.rig.image import MIB
from dev.rig.relay import BLOCK
from dev.rig.scene import (WSM, Scene, enable, finish, query, wait_phase,
                           wait_total)
from dev.rig.vm import Vm
from tests.functional.lib import tls
from tests.functional.lib.descriptor import (NAME, URI, Proxy, begin_by,
                                             connect, connect_to, pass_on)
from tests.functional.lib.moves import (LOAD, SLOW_PUSH, end, expect_moved,
                                        expect_postcopy, expect_unharmed,
                                        loaded_source, second_try)
from tests.functional.lib.registry import add, test
from tests.functional.test_cuts import (LONG_POSTCOPY, complete,
                                        cut_whole_link, let_go,
                                        wait_reconnected)


def peer(vm: Vm) -> str:
    """What the image's record calls the other host."""
    return str(query(vm)['images'][0].get('peer'))


def move_by(scene: Scene, source: Vm, destination: Vm, sock: socket.socket,
            there: str = '', here: str = '') -> None:
    """Move; @there and @here are how the hosts are called."""
    begin_by(source, sock, **SLOW_PUSH)
    wait_phase(destination, 'postcopy')
    let_go(source)
    finish(source, destination)
    expect_postcopy(source)
    require(there in ('', peer(source)), f'moved to {peer(source)}')
    require(here in ('', peer(destination)), f'came from {peer(destination)}')
    expect_moved(scene, source, destination)
    end(source, destination)


@test()
def fd_connected(scene: Scene) -> None:
    """Block channels go to where the socket is connected to."""
    source = loaded_source(scene)
    destination = scene.destination()
    port = destination.listen_port()
    move_by(scene, source, destination, connect(port), f'127.0.0.1:{port}')


@test()
def fd_connected_unix(scene: Scene) -> None:
    """A socket that is connected to a path."""
    source = loaded_source(scene)
    path = scene.folder / 'migration'
    destination = scene.destination(f'unix:{path}')
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    move_by(scene, source, destination, sock, f'unix:{path}')


@test()
def fd_connected_mapped(scene: Scene) -> None:
    """IPv4 in sockets for IPv6: both hosts keep their usual names."""
    source = loaded_source(scene)
    destination = scene.destination('tcp:[::]:0')
    port = destination.listen_port()
    sock = socket.socket(socket.AF_INET6)
    sock.connect(('::ffff:127.0.0.1', port))
    move_by(scene, source, destination, sock, f'127.0.0.1:{port}',
            '127.0.0.1')


@test()
def fd_connected_ipv6(scene: Scene) -> None:
    """A socket that is connected by IPv6."""
    source = loaded_source(scene)
    destination = scene.destination('tcp:[::1]:0')
    port = destination.listen_port()
    move_by(scene, source, destination, connect(port, '::1'),
            f'[::1]:{port}', '::1')


@test()
def fd_connected_tls(scene: Scene) -> None:
    """TLS on top, with a certificate for another name (tls-hostname)."""
    source = loaded_source(scene)
    destination = scene.destination('defer')
    tls.use_x509_on_both(scene, source, destination)
    destination.qmp.cmd('migrate-incoming', uri='tcp:127.0.0.1:0')
    move_by(scene, source, destination, connect_to(destination))


@test()
def fd_in_channels(scene: Scene) -> None:
    """The argument "channels" instead of "uri"."""
    source = loaded_source(scene)
    destination = scene.destination()
    enable(source, **SLOW_PUSH)
    pass_on(source, connect_to(destination))
    source.qmp.cmd('migrate', channels=[{
        'channel-type': 'main',
        'addr': {'transport': 'socket', 'type': 'fd', 'str': NAME}}])
    source.qmp.expect_error('closefd', 'not found', fdname=NAME)
    wait_phase(source, 'postcopy')
    complete(scene, source, destination)


def no_streams(scene: Scene) -> Iterator[tuple[str, list[int]]]:
    """Descriptors that are no connected socket: the first of each is it."""
    yield 'a pipe', list(reversed(os.pipe()))
    yield 'a file', [os.open(scene.folder / 'state', os.O_RDWR | os.O_CREAT)]
    yield 'socketpair', [sock.detach() for sock in socket.socketpair()]
    yield 'not connected', [socket.socket().detach()]
    yield 'datagrams', [socket.socket(socket.AF_INET,
                                      socket.SOCK_DGRAM).detach()]


@test()
def fd_refused(scene: Scene) -> None:
    """What is no connected socket is refused, and what to do is said."""
    source = loaded_source(scene)
    enable(source)
    for what, descriptors in no_streams(scene):
        source.qmp.pass_fd(NAME, descriptors[0])
        source.qmp.expect_error('migrate', WSM, what, URI, 'tcp:',
                                'switch the capability off', uri=URI)
        require(query(source)['phase'] == 'none', 'a migration has begun')
        source.qmp.cmd('closefd', fdname=NAME)
        for descriptor in descriptors:
            os.close(descriptor)
    require((scene.folder / 'state').stat().st_size == 0, 'it was written to')
    source.qmp.expect_error('migrate', 'not been found', uri=URI)
    expect_unharmed(scene, source)
    second_try(scene, source)


@test()
def fd_of_second_migrate(scene: Scene) -> None:
    """One that is refused does not lead the first astray."""
    source = loaded_source(scene)
    destination = scene.destination()
    relay = scene.make_relay(destination)
    begin_by(source, connect_to(relay), bandwidth=4 * MIB)
    wait_total(source, 'sent', MIB)
    with socket.create_server(('127.0.0.1', 0)) as other:
        pass_on(source, connect(other.getsockname()[1]))
        source.qmp.expect_error('migrate', 'in progress', uri=URI)
    source.qmp.cmd('closefd', fdname=NAME)
    relay.cut(BLOCK)
    wait_reconnected(source, 0)
    source.qmp.cmd('wsm-set-options', bandwidth=0)
    complete(scene, source, destination)


@test()
def fd_recovery(scene: Scene) -> None:
    """All is cut in post-copy; the new stream is a descriptor, too."""
    source = loaded_source(scene, **{**LOAD, 'rate': 0})
    destination = scene.destination()
    relay = scene.make_relay(destination)
    begin_by(source, connect_to(relay), **LONG_POSTCOPY)
    wait_phase(destination, 'postcopy')
    cut_whole_link(relay)
    for vm in (source, destination):
        vm.wait_migration('postcopy-paused')
    destination.qmp.expect_error('migrate-recover', WSM, 'tcp:', uri='fd:0')
    destination.qmp.cmd('migrate-recover', uri='tcp:127.0.0.1:0')
    # Not by the relay any more: block channels must follow
    pass_on(source, connect_to(destination))
    source.qmp.cmd('migrate', uri=URI, resume=True)
    for vm in (source, destination):
        vm.wait_migration('postcopy-active')
    complete(scene, source, destination)


def through_proxy(name: str, summary: str, deaf: bool,
                  outcome: Callable[[Vm], str]) -> None:
    """Add a test with a proxy that takes only the main stream."""
    def function(scene: Scene) -> None:
        source = loaded_source(scene)
        destination = scene.destination()
        proxy = Proxy(destination.listen_port(), deaf)
        begin_by(source, proxy.client)
        text = outcome(source)
        for word in ('proxy', 'several connections', str(proxy.port)):
            require(word in text, f'the error lacks "{word}": {text}')
        proxy.close()
        expect_unharmed(scene, source)
        destination.close()
        second_try(scene, source)

    function.__doc__ = summary
    add(name, function)


def failed(source: Vm) -> str:
    source.wait_migration('failed')
    return str(source.migration()['error-desc'])


def silent(source: Vm) -> str:
    """It may be slow only, so it is for the user to decide."""
    text: Optional[str] = wait_until(lambda: query(source).get('error'),
                                     'an error is shown')
    require(query(source)['phase'] == 'setup', 'it is not in phase setup')
    source.qmp.cmd('migrate_cancel')
    source.wait_migration('cancelled')
    return str(text)


through_proxy('fd-through-closed-proxy',
              'A tunnel that takes no second connection: why, at once.',
              False, failed)
through_proxy('fd-through-deaf-proxy',
              'A tunnel that never answers a second connection.', True, silent)
