# SPDX-License-Identifier: GPL-2.0-or-later
"""Many connections, many messages: what one port and one session may cost."""

import socket
from pathlib import Path

from dev.rig.basics import TIMEOUT, require, wait_until
from dev.rig.relay import BLOCK
from dev.rig.scene import Scene, begin, query, wait_total
from dev.rig.vm import Vm
from dev.rig.wire import HEADER, PREAMBLE, Message, Type, hello
from tests.functional.lib.moves import (SLOW_DISK, SLOW_PUSH, expect_unharmed,
                                        loaded_source, running_migration,
                                        second_try, to_the_end)
from tests.functional.lib.registry import test
from tests.functional.lib.strangers import Stranger

MANY = 200
# More messages than fit into the buffers of both ends, and into any limit
FLOOD = Message(Type.ZERO, count=4096).encode() * 10000
FLOODS = 200
QUIET_SECONDS = 2.0


def all_up(vm: Vm) -> bool:
    return all(channel['connected'] for channel in query(vm)['channels'])


@test()
def strangers_in_all_places(scene: Scene) -> None:
    """Block channels that do not say HELLO take all places, in advance."""
    source = loaded_source(scene)
    destination = scene.destination()
    port = destination.listen_port()
    strangers = [Stranger(port, PREAMBLE) for _ in range(MANY)]
    begin(source, scene.uri(destination), **SLOW_DISK)
    to_the_end(scene, source, destination)
    for stranger in strangers:
        stranger.close()


@test()
def strangers_while_channels_are_down(scene: Scene) -> None:
    """The same while the real channels are to come back."""
    source = loaded_source(scene)
    destination = scene.destination()
    relay = scene.make_relay(destination)
    begin(source, relay.uri, **SLOW_DISK, **SLOW_PUSH)
    wait_total(source, 'sent')
    relay.refusing = True
    relay.cut(BLOCK)
    port = destination.listen_port()
    strangers = [Stranger(port, PREAMBLE) for _ in range(MANY)]
    relay.refusing = False
    wait_until(lambda: all_up(source), 'all channels are up again')
    require('more than' not in destination.stderr(),
            'there was no room for a channel, as long as they had time')
    to_the_end(scene, source, destination)
    for stranger in strangers:
        stranger.close()


@test()
def many_silent_strangers(scene: Scene) -> None:
    """Of connections that say nothing only the newest are kept."""
    source = loaded_source(scene)
    destination = scene.destination()
    before = destination.sockets()
    port = destination.listen_port()
    strangers = [Stranger(port, b'') for _ in range(MANY)]
    strangers[0].receive_all()
    wait_until(lambda: destination.sockets() - before <= MANY // 2,
               'the oldest are closed')
    require('Too many connections' in destination.stderr(),
            'they were closed for another reason')
    begin(source, scene.uri(destination), **SLOW_DISK)
    to_the_end(scene, source, destination)
    for stranger in strangers:
        stranger.close()


def flood(sock: socket.socket) -> None:
    """Send, and read no answer, until the other side reads no more."""
    sock.settimeout(QUIET_SECONDS)
    try:
        for _ in range(FLOODS):
            sock.sendall(FLOOD)
    except (socket.timeout, ConnectionError):
        pass


def mappings(vm: Vm) -> int:
    """Areas of memory, of which each coroutine has two."""
    return len(Path(f'/proc/{vm.pid}/maps').read_text('utf-8').splitlines())


@test()
def answers_not_read(scene: Scene) -> None:
    """A session's peer sends ZERO without end and reads no ACK."""
    source, destination, session = running_migration(scene)
    # Else it would take its channels back
    source.freeze(True)
    before = mappings(destination)
    strangers = []
    for channel in (1, 2):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(TIMEOUT)
        sock.connect(('127.0.0.1', destination.listen_port()))
        sock.sendall(PREAMBLE + hello(session, channel=channel))
        fields = HEADER.unpack(sock.recv(HEADER.size))
        require(fields[1] == Type.WELCOME, f'answer of type {fields[1]}')
        flood(sock)
        strangers.append(sock)
    require(destination.alive(), 'the destination died of it')
    more = mappings(destination) - before
    require(more < 2000, f'it has cost {more} mappings')
    for sock in strangers:
        sock.close()
    source.freeze(False)
    destination.close()
    source.wait_migration('failed')
    expect_unharmed(scene, source)
    second_try(scene, source)
