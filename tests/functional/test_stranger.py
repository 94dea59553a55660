# SPDX-License-Identifier: GPL-2.0-or-later
"""Strangers at the destination's port, and a destination that lies."""

import os
import re
import socket
import struct
import threading
import uuid
from typing import Callable, Optional

from dev.rig.basics import require
from dev.rig.image import MIB
from dev.rig.relay import BLOCK
from dev.rig.scene import Scene, begin, wait_total
from dev.rig.vm import Vm
from dev.rig.wire import (FEATURES, HEADER, HELLO, PREAMBLE, VERSION, Message,
                          NewerSource, Type, hello)
from tests.functional.lib import tls
from tests.functional.lib.moves import (SLOW_DISK, SLOW_PUSH, expect_unharmed,
                                        loaded_source, running_migration,
                                        second_try, to_the_end)
from tests.functional.lib.registry import add, test
from tests.functional.lib.strangers import Stranger

UNKNOWN = 0xc0000000            # features that nobody has yet
ANY_SESSION = '00000000-0000-4000-8000-000000000000'


def refusal(answer: bytes) -> str:
    """The text of the REFUSE that the answer must be."""
    require(len(answer) >= HEADER.size, f'no REFUSE came, but {answer!r}')
    fields = HEADER.unpack_from(answer)
    require(fields[1] == Type.REFUSE, f'answer of type {fields[1]}')
    return answer[HEADER.size:].decode()


@test()
def stranger_before_migration(scene: Scene) -> None:
    """Garbage and block channels of nobody, before the source comes."""
    source = loaded_source(scene)
    destination = scene.destination()
    port = destination.listen_port()
    for data in (b'GET / HTTP/1.1\r\n\r\n', os.urandom(4096),
                 PREAMBLE + hello(ANY_SESSION), PREAMBLE):
        Stranger(port, data).close()
    waiting = Stranger(port, PREAMBLE + hello(ANY_SESSION))
    begin(source, scene.uri(destination), **SLOW_DISK)
    to_the_end(scene, source, destination)
    waiting.close()


@test()
def stranger_with_garbage(scene: Scene) -> None:
    """Garbage at the port while a migration runs."""
    source, destination, _ = running_migration(scene)
    port = destination.listen_port()
    for data in (b'', b'\x00', b'GET / HTTP/1.1\r\n\r\n', os.urandom(4096),
                 PREAMBLE, PREAMBLE + os.urandom(4096),
                 PREAMBLE + bytes(HEADER.size),
                 PREAMBLE + hello(ANY_SESSION)[:-1]):
        Stranger(port, data).close()
    for data in (b'GET / HTTP/1.1\r\n\r\n', PREAMBLE + os.urandom(4096)):
        Stranger(port, data).receive_all()
    to_the_end(scene, source, destination)


@test()
def silent_strangers(scene: Scene) -> None:
    """Connections that send nothing, or a part, and stay."""
    source, destination, session = running_migration(scene)
    port = destination.listen_port()
    strangers = [Stranger(port, data) for data in
                 (b'', b'WS', PREAMBLE, PREAMBLE + hello(session)[:20])]
    to_the_end(scene, source, destination)
    for stranger in strangers:
        stranger.close()


@test()
def silent_stranger_tls(scene: Scene) -> None:
    """A block channel that does not begin its TLS handshake is closed."""
    source = loaded_source(scene)
    destination = scene.destination('defer')
    tls.use_x509_on_both(scene, source, destination)
    destination.qmp.cmd('migrate-incoming', uri='tcp:127.0.0.1:0')
    begin(source, scene.uri(destination), bandwidth=2 * MIB, **SLOW_PUSH)
    wait_total(source, 'sent')
    Stranger(destination.listen_port(), PREAMBLE).receive_all()
    to_the_end(scene, source, destination)


@test()
def wrong_session(scene: Scene) -> None:
    """HELLO with another session is refused by name."""
    source, destination, _ = running_migration(scene)
    answer = Stranger(destination.listen_port(), PREAMBLE
                      + hello(str(uuid.uuid4()))).receive_all()
    text = refusal(answer)
    require('session' in text.lower(), f'REFUSE says: {text}')
    to_the_end(scene, source, destination)


@test()
def wrong_version(scene: Scene) -> None:
    """HELLO with another protocol version is refused with both."""
    source, destination, session = running_migration(scene)
    for version in (0, VERSION - 1):
        answer = Stranger(destination.listen_port(), PREAMBLE
                          + hello(session, version=version)).receive_all()
        text = refusal(answer)
        require(f'the source has version {version} of' in text
                and f'destination has version {VERSION} (qemu-wsm 0.{VERSION});'
                in text
                and 'on both hosts' in text, f'REFUSE says: {text}')
    for version, features in ((VERSION + 1, 0), (77, 0), (VERSION, 0)):
        answer = Stranger(destination.listen_port(), PREAMBLE + hello(
            session, version=version, features=features)).receive_all()
        text = refusal(answer)
        require(f'the source has version {version} of the protocol and '
                f'features 0x{features:x} here, but had version {VERSION} and '
                f'features 0x{FEATURES:x} in START' in text, f'REFUSE says: {text}')
    to_the_end(scene, source, destination)


@test()
def newer_source(scene: Scene) -> None:
    """A source that can do more, and less as well, is welcome."""
    source = loaded_source(scene)
    destination = scene.destination()
    relay = scene.make_relay(destination)
    relay.edit = newer = NewerSource(VERSION + 1, UNKNOWN, 0)
    begin(source, relay.uri)
    to_the_end(scene, source, destination)
    require(newer.starts == 1, f'{newer.starts} START were changed')
    require(newer.hellos >= 3, f'{newer.hellos} HELLO were changed')


@test()
def features_required(scene: Scene) -> None:
    """A source that needs what the destination does not know fails by name."""
    source = loaded_source(scene)
    destination = scene.destination()
    relay = scene.make_relay(destination)
    relay.edit = newer = NewerSource(VERSION + 1, UNKNOWN, 0x80000000)
    begin(source, relay.uri)
    source.wait_migration('failed')
    require(newer.starts == 1, f'{newer.starts} START were changed')
    text = source.migration()['error-desc']
    require(re.search(
        rf'the source \(qemu-wsm 0.{VERSION + 1}\) needs features 0x80000000 '
        rf'of the protocol, the destination \(qemu-wsm 0.{VERSION}\) has only '
        'features 0x[0-9a-f]+; run the same version', text), text)
    relay.edit = None
    expect_unharmed(scene, source)
    second_try(scene, source)


@test()
def wrong_channel(scene: Scene) -> None:
    """HELLO with a channel number that was not agreed on."""
    source, destination, session = running_migration(scene)
    for channel in (3, 16, 17, 255):
        answer = Stranger(destination.listen_port(), PREAMBLE + hello(
            session, channel=channel)).receive_all()
        text = refusal(answer) if answer else 'channel (just closed)'
        require('channel' in text, f'REFUSE says: {text}')
    to_the_end(scene, source, destination)


def bad_message(name: str, summary: str,
                make: Callable[[Vm], bytes]) -> None:
    """Add a test: one that knows the session sends this in a channel."""
    def function(scene: Scene) -> None:
        source, destination, session = running_migration(scene)
        stranger = Stranger(destination.listen_port(), PREAMBLE
                            + hello(session) + make(destination))
        stranger.end_sending()
        stranger.receive_all()
        scene.guest.wait_progress(writes=10)
        to_the_end(scene, source, destination)

    function.__doc__ = summary
    add(name, function)


def size_of(vm: Vm) -> int:
    return vm.images[0].size


bad_message('data-behind-the-end', 'DATA behind the end of the disk.',
            lambda vm: Message(Type.DATA, offset=size_of(vm), count=4096,
                               payload=bytes(4096)).encode())
bad_message('data-wraps-around', 'DATA whose end is beyond 2^64.',
            lambda vm: Message(Type.DATA, offset=(1 << 64) - 4096,
                               count=8192, payload=bytes(8192)).encode())
bad_message('data-unaligned', 'DATA that begins inside a block.',
            lambda vm: Message(Type.DATA, offset=512, count=4096,
                               payload=bytes(4096)).encode())
bad_message('data-oversized', 'DATA that says it has 4 GiB.',
            lambda vm: Message(Type.DATA, count=1 << 32,
                               length=(1 << 32) - 1).encode())
bad_message('data-length-lies', 'DATA with fewer bytes than its range.',
            lambda vm: Message(Type.DATA, count=8192,
                               payload=bytes(4096)).encode())
bad_message('data-truncated', 'DATA that ends in the middle.',
            lambda vm: Message(Type.DATA, count=65536, payload=bytes(4096),
                               length=65536).encode())
bad_message('disk-unknown', 'DATA for a disk that is not there.',
            lambda vm: Message(Type.DATA, disk=1, count=4096,
                               payload=bytes(4096)).encode())
bad_message('zero-behind-the-end', 'ZERO that runs over the end.',
            lambda vm: Message(Type.ZERO, offset=size_of(vm) - 4096,
                               count=8192).encode())
bad_message('type-unknown', 'A message of an unknown type.',
            lambda vm: Message(200).encode())
bad_message('magic-wrong', 'A header with another magic.',
            lambda vm: Message(Type.SYNC, magic=0x12345678).encode())
bad_message('epoch-wrong', 'DATA of an epoch that will never be.',
            lambda vm: Message(Type.DATA, epoch=9, count=4096,
                               payload=bytes(4096)).encode())
bad_message('wrong-direction', 'A message that only a destination sends.',
            lambda vm: Message(Type.ACK, count=4096).encode())
bad_message('go-on-bulk-channel', 'GO where it does not belong.',
            lambda vm: Message(Type.GO).encode())
bad_message('hash-oversized', 'HASH of more than 1 MiB.',
            lambda vm: Message(Type.HASH, count=2 * MIB).encode())
bad_message('hash-after-freeze', 'HASH of an epoch in which there is none.',
            lambda vm: Message(Type.HASH, epoch=1, count=4096).encode())
bad_message('point-on-bulk-channel', 'POINT where it does not belong.',
            lambda vm: Message(Type.POINT, epoch=1, count=4096,
                               payload=bytes(2)).encode())


# Behind the preamble: header, session, version, channel, ...
CHANNEL_AT = len(PREAMBLE) + HEADER.size + 18
HELLO_END = len(PREAMBLE) + HEADER.size + HELLO.size


class FakeDestination:
    """Listens as a destination does, and answers with what it likes."""

    def __init__(self, answer: Callable[[bytes], Optional[bytes]]) -> None:
        self._answer = answer
        self._listener = socket.create_server(('127.0.0.1', 0))
        self.uri = f'tcp:127.0.0.1:{self._listener.getsockname()[1]}'
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(sock,),
                             daemon=True).start()

    def _talk(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(4096)
            while data.startswith(PREAMBLE) and len(data) < HELLO_END:
                more = sock.recv(4096)
                data = data + more if more else b''
            answer = self._answer(data) if data else None
            if answer is None:
                sock.close()
                return
            sock.sendall(answer)
            while sock.recv(65536):
                pass
        except OSError:
            pass
        sock.close()

    def close(self) -> None:
        self._listener.close()


def fake_destination(name: str, summary: str,
                     answer: Callable[[bytes], Optional[bytes]],
                     reason: str = '') -> None:
    """Add a test of a source that meets this destination."""
    def function(scene: Scene) -> None:
        source = loaded_source(scene)
        fake = FakeDestination(answer)
        begin(source, fake.uri)
        source.wait_migration('failed')
        text = source.migration()['error-desc']
        require(re.search(reason, text), text)
        fake.close()
        expect_unharmed(scene, source)
        second_try(scene, source)

    function.__doc__ = summary
    add(name, function)


def to_block(data: bytes, answer: bytes) -> bytes:
    """An answer for block channels only; the main stream is swallowed."""
    return answer if data.startswith(PREAMBLE) else b''


def welcome(data: bytes, kind: int, own: Message) -> bytes:
    """Answer HELLO; on channel 0 with what disk 0 builds on, and an OWN."""
    answer = Message(Type.WELCOME, payload=bytes(4)).encode()
    if data[CHANNEL_AT] == 0:
        answer += Message(Type.BASIS, offset=kind,
                          payload=bytes(16) + b'x').encode() + own.encode()
    return to_block(data, answer)


REFUSE = Message(Type.REFUSE, payload=b'we are closed').encode()

# Its main stream may break first, which QEMU says in its own words
fake_destination('fake-destination-closes',
                 'Whatever connects is closed at once.', lambda data: None,
                 'is qemu-wsm installed|ram_save_setup failed')
fake_destination('fake-destination-garbage',
                 'Every connection is answered with garbage.',
                 lambda data: struct.pack('>64I', *range(1, 65)))
fake_destination('fake-destination-refuses',
                 'Block channels are refused.',
                 lambda data: to_block(data, REFUSE))
fake_destination('fake-destination-oversized',
                 'WELCOME with a payload that nobody asked for.',
                 lambda data: to_block(data, Message(
                     Type.WELCOME, length=0xffffffff).encode()))
fake_destination('fake-destination-features',
                 'WELCOME with features that the source does not have.',
                 lambda data: to_block(data, Message(
                     Type.WELCOME, payload=b'\x80\0\0\1').encode()),
                 'the destination uses features 0x80000001 of the protocol, '
                 f'but the source has 0x{FEATURES:x}')
fake_destination('fake-destination-own-of-nothing',
                 'OWN although the basis said that all is sent.',
                 lambda data: welcome(data, 1, Message(Type.OWN, count=4096)),
                 'is out of order')
fake_destination('fake-destination-own-gap',
                 'OWN that does not begin where it must, basis "content".',
                 lambda data: welcome(data, 2, Message(Type.OWN, offset=4096,
                                                       count=4096)),
                 'is out of order')
fake_destination('fake-destination-own-beyond',
                 'Data beyond the range that OWN is about, basis "content".',
                 lambda data: welcome(data, 2, Message(
                     Type.OWN, count=64 * MIB, payload=b'\xff\x7f\x02')),
                 'OWN of disk')


@test()
def two_strangers_and_a_cut(scene: Scene) -> None:
    """Strangers come while the real channels are down."""
    source = loaded_source(scene)
    destination = scene.destination()
    relay = scene.make_relay(destination)
    begin(source, relay.uri, bandwidth=2 * MIB, **SLOW_PUSH)
    wait_total(source, 'sent')
    relay.refusing = True
    relay.cut(BLOCK)
    for session in (ANY_SESSION, str(uuid.uuid4())):
        answer = Stranger(destination.listen_port(),
                          PREAMBLE + hello(session)).receive_all()
        refusal(answer)
    relay.refusing = False
    to_the_end(scene, source, destination)
