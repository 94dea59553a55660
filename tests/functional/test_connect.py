# SPDX-License-Identifier: GPL-2.0-or-later
"""From `migrate` to the first bytes: what is prepared, and what fails."""

import socket

from dev.rig.basics import TIMEOUT, require, wait_until
from dev.rig.scene import (Scene, begin, enable, expect_clean, finish, query,
                           wait_phase)
from dev.rig.vm import Vm
from tests.functional.lib.hold import FlushGate
from tests.functional.lib.moves import (LOAD, SLOW_DISK, end, expect_moved,
                                        expect_unharmed, loaded_source, move,
                                        second_try, to_the_end)
from tests.functional.lib.registry import test


def closed_port() -> tuple[socket.socket, int]:
    """A port at which nobody listens as long as the socket lives."""
    sock = socket.socket()
    sock.bind(('127.0.0.1', 0))
    return sock, int(sock.getsockname()[1])


class DeafListener:
    """Answers no SYN until accept() is called."""

    def __init__(self) -> None:
        self._listener = socket.create_server(('127.0.0.1', 0), backlog=0)
        self._port = self._listener.getsockname()[1]
        self._listener.settimeout(TIMEOUT)
        # With it the queue is full
        self._first = socket.create_connection(('127.0.0.1', self._port))
        self.uri = f'tcp:127.0.0.1:{self._port}'

    def accept(self) -> socket.socket:
        """Make room, and return the connection that was waiting."""
        self._listener.accept()[0].close()
        sock = self._listener.accept()[0]
        sock.settimeout(TIMEOUT)
        return sock

    def close(self) -> None:
        self._first.close()
        self._listener.close()


def fail_to_connect(vm: Vm, uri: str) -> None:
    """What is known of the migration before is forgotten at once."""
    vm.qmp.events.clear()
    vm.qmp.cmd('migrate', uri=uri)
    phase = query(vm)['phase']
    require(phase in ('setup', 'failed'), f'{uri}: phase {phase} at once')
    wait_phase(vm, 'setup')
    wait_phase(vm, 'failed')
    info = query(vm)
    require(info['phase'] == 'failed' and info['role'] == 'source',
            f'{uri}: {info["role"]}, {info["phase"]}')
    error = vm.wait_migration('failed').get('error-desc', '')
    require(error and error in info.get('error', ''),
            f'{uri}: "{info.get("error")}" is not "{error}"')
    expect_clean(vm)
    require(vm.status() == 'running', f'{uri}: guest is {vm.status()}')


@test()
def connect_refused(scene: Scene) -> None:
    """The migration after one that completed cannot connect."""
    source = loaded_source(scene)
    destination = scene.destination()
    move(scene, source, destination)
    source.quit()
    sock, port = closed_port()
    for uri in (f'tcp:127.0.0.1:{port}', 'tcp:nowhere.invalid:4444',
                f'unix:{scene.folder}/nobody'):
        fail_to_connect(destination, uri)
    sock.close()
    second_try(scene, destination)


@test()
def cancel_while_connecting(scene: Scene) -> None:
    """migrate_cancel while nobody answers; later somebody does."""
    source = loaded_source(scene)
    deaf = DeafListener()
    enable(source)
    source.set_caps('events')
    source.qmp.cmd('migrate', uri=deaf.uri)
    wait_phase(source, 'setup')
    require(query(source)['phase'] == 'setup', 'not in setup')
    source.qmp.cmd('migrate_cancel')
    wait_phase(source, 'cancelled')
    source.wait_migration('cancelled')
    require(query(source)['phase'] == 'cancelled', 'not cancelled')
    require(not source.bitmaps(), 'writes are still tracked')
    source.qmp.expect_error('migrate', 'still tries to connect',
                            uri='tcp:127.0.0.1:4444')
    require(query(source)['phase'] == 'cancelled', 'refused, but not as it was')

    sock = deaf.accept()
    data = sock.recv(4096)
    require(not data, f'sent after it was cancelled: {data!r}')
    sock.close()
    deaf.close()
    expect_unharmed(scene, source)
    for status in (source.migration_status(), query(source)['phase']):
        require(status == 'cancelled', f'{status} after it was cancelled')
    second_try(scene, source)


@test()
def slow_request_at_start(scene: Scene) -> None:
    """A request of the guest takes long: nobody is connected to meanwhile."""
    gate = FlushGate(scene.folder)
    plain = scene.config
    scene.config = gate.machine(plain)
    source = loaded_source(scene, **LOAD)
    destination = scene.destination(config=plain)
    relay = scene.make_relay(destination)
    enable(source)
    source.set_caps('events')
    gate.shut()
    wait_until(gate.held, 'a flush of the guest that takes long')
    number = source.qmp.start('migrate', {'uri': relay.uri})
    wait_phase(source, 'setup')
    require(not relay.connections, 'connected before the disks are prepared')
    gate.open()
    source.qmp.finish(number, 'migrate')
    finish(source, destination)
    expect_moved(scene, source, destination)
    end(source, destination)


@test()
def migrate_in_postcopy(scene: Scene) -> None:
    """The guest cannot move on before it has all its blocks."""
    source = loaded_source(scene)
    destination = scene.destination()
    begin(source, scene.uri(destination), **SLOW_DISK, x_push_delay=200,
          max_residue=30000)
    wait_phase(destination, 'postcopy')
    destination.qmp.expect_error('migrate', 'not all its blocks', 'wait',
                                 uri='tcp:127.0.0.1:4444')
    require(query(destination)['phase'] == 'postcopy', 'not in post-copy')
    source.qmp.cmd('wsm-set-options', x_push_delay=0)
    to_the_end(scene, source, destination)
