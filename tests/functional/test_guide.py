# SPDX-License-Identifier: GPL-2.0-or-later
"""The user guide, typed literally at two hosts."""

import json
import os
import re
import select
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Optional

from dev.common import BUILD, ROOT
from dev.rig.basics import (GUEST_BUILD, QEMU, TIMEOUT, TestFailure, require,
                            wait_until)
from dev.rig.guest import remove_socket
from dev.rig.host import Host
from dev.rig.image import MIB
from dev.rig.qmp import Json, QmpError
from dev.rig.scene import Scene
from dev.rig.vm import ACCEL, KERNEL_LINE
from tests.functional.lib import guide
from tests.functional.lib.guide import Command
from tests.functional.lib.moves import LOAD
from tests.functional.lib.registry import test

IMAGE = '/var/lib/vm/vm1.qcow2'
# Whoever runs the tests has built, and Desk sets PATH
DONE = ('scripts/build', 'export PATH=$PWD/build:$PATH')
# Of QEMU and Debian; another one is no fault of the guide
VERSION = re.compile(r'[\d:]*\b10\.0\.\d+[^ ,)]*')
# In $1 a host has its own /etc, /run and /var/lib
ENTER = """
for name in etc run var/lib; do
    mount --bind "$1/$name" "/$name"
done
exec sh -euc "$2"
"""
ADDRESSES = '127.0.0.1 localhost\n10.211.0.1 alpha\n10.211.0.2 beta\n'


class Typist:
    """What is typed into the program that talks to a monitor."""

    def __init__(self, process: 'subprocess.Popen[bytes]') -> None:
        self._process = process
        self._buffer = b''
        require('QMP' in self._line(), 'no QMP greeting')

    def _line(self) -> Json:
        assert self._process.stdout is not None
        deadline = time.monotonic() + TIMEOUT
        while b'\n' not in self._buffer:
            left = max(0, deadline - time.monotonic())
            ready = select.select([self._process.stdout], [], [], left)[0]
            data = os.read(self._process.stdout.fileno(), 65536) \
                if ready else b''
            if not data:
                raise TestFailure('the monitor does not answer')
            self._buffer += data
        line, self._buffer = self._buffer.split(b'\n', 1)
        message: Json = json.loads(line)
        return message

    def type(self, text: str) -> Json:
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode() + b'\n')
        self._process.stdin.flush()
        while True:
            message = self._line()
            if 'return' in message or 'error' in message:
                return message


class Desk:
    """A host, and somebody who types there what the guide says."""

    def __init__(self, name: str, host: Host, scene: Scene) -> None:
        self.name = name
        self._host = host
        self._scene = scene
        self._root = scene.folder / name
        for folder in ('run', 'var/lib/vm'):
            (self._root / folder).mkdir(parents=True)
        shutil.copytree('/etc', self._root / 'etc', symlinks=True)
        (self._root / 'etc/hosts').write_text(ADDRESSES)
        self._typist: Optional[Typist] = None
        self.qemu: Optional['subprocess.Popen[bytes]'] = None
        self._programs: list['subprocess.Popen[bytes]'] = []

    # The shell

    def _start(self, text: str, **options: Any) -> 'subprocess.Popen[bytes]':
        path = f'{QEMU.resolve().parent}:{BUILD}:{os.environ["PATH"]}'
        # pylint: disable-next=consider-using-with
        process = subprocess.Popen(
            [*self._host.prefix(), 'unshare', '--mount', 'sh', '-euc', ENTER,
             'sh', str(self._root), text], cwd=ROOT,
            env={**os.environ, 'PATH': path}, **options)
        self._programs.append(process)
        return process

    def shell(self, text: str) -> list[str]:
        process = self._start(text, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE)
        out, _ = process.communicate()
        require(process.returncode == 0, f'{self.name}$ {text}: {out!r}')
        return [line.strip() for line in out.decode().splitlines()]

    def boot(self, text: str) -> None:
        """Start QEMU as the guide says, with the guest of the tests in it."""
        card = self._scene.folder / f'{self.name}-card'
        remove_socket(card)
        self.path('run/vm1.qmp').unlink(missing_ok=True)
        guest = [
            '-display', 'none', '-kernel', str(GUEST_BUILD / 'vmlinuz'),
            '-initrd', str(GUEST_BUILD / 'initrd.img'),
            '-append', f"'{KERNEL_LINE}'", '-no-reboot', '-netdev',
            f'dgram,id=net,local.type=unix,local.path={card},'
            f'remote.type=unix,remote.path={self._scene.guest.path}',
            '-device', 'virtio-net-pci,netdev=net,romfile=']
        text = text.replace('accel=kvm', f'accel={ACCEL.split(",")[0]}')
        with open(self.path('stderr'), 'ab') as errors:
            self.qemu = self._start(f'exec {text} {" ".join(guest)}',
                                    stdin=subprocess.DEVNULL, stderr=errors)
        wait_until(self._listens, f'{self.name}: monitor: {self.errors()}')
        self._scene.guest.attach(card)

    def _listens(self) -> bool:
        require(self.qemu is not None and self.qemu.poll() is None,
                f'{self.name}: QEMU ended: {self.errors()}')
        return self.path('run/vm1.qmp').exists()

    def path(self, name: str) -> Path:
        return self._root / name

    def errors(self) -> str:
        return self.path('stderr').read_text('utf-8', 'replace')

    # The monitor

    def open(self, text: str) -> None:
        self._typist = Typist(self._start(
            text, stdin=subprocess.PIPE, stdout=subprocess.PIPE))

    def is_open(self) -> bool:
        return self._typist is not None

    def type(self, text: str) -> Any:
        assert self._typist is not None
        answer = self._typist.type(text)
        if 'error' in answer:
            raise QmpError(text, answer['error'])
        return answer['return']

    def execute(self, name: str, **arguments: Any) -> Any:
        return self.type(json.dumps({'execute': name,
                                     'arguments': arguments}))

    def wait_status(self, *wanted: str) -> None:
        """Wait for a status of the migration."""
        def reached() -> bool:
            info = self.execute('query-migrate')
            require(info.get('status') != 'failed' or 'failed' in wanted,
                    f'{self.name}: {info}: {self.errors()}')
            return info.get('status') in wanted

        wait_until(reached, f'{self.name}: {"/".join(wanted)}')

    def ended(self) -> None:
        """QEMU was told to quit, and does."""
        assert self.qemu is not None
        require(self.qemu.wait(TIMEOUT) == 0, self.errors())
        self._typist = None

    def kill(self) -> None:
        for process in self._programs:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
        self._typist = None
        self._programs = []


class Walk:
    """Somebody walks through the guide."""

    def __init__(self, scene: Scene) -> None:
        self.link = scene.make_link()
        self.scene = scene
        self.sections = guide.read()
        self.alpha = Desk('alpha', self.link.a, scene)
        self.beta = Desk('beta', self.link.b, scene)

    def commands(self, start: str, *names: str) -> list[Command]:
        """Those in the section whose title begins so, or some of them."""
        titles = [title for title in self.sections if title.startswith(start)]
        require(len(titles) == 1, f'"{start}": sections {titles}')
        found = self.sections[titles[0]]
        if not names:
            return found
        chosen = [command for command in found if command.monitor
                  and command.json()['execute'] in names]
        require(len(chosen) >= len(names), f'{titles[0]}: {names}')
        return chosen

    def walk(self, start: str, *names: str,
             but: Callable[[Command], bool] = lambda _: False) -> None:
        for command in self.commands(start, *names):
            if not but(command):
                self.type(command)

    def type(self, command: Command) -> None:
        desk = self.alpha if command.host == 'alpha' else self.beta
        if command.monitor:
            self._type_json(desk, command)
        elif command.text.startswith('qemu-system-x86_64 -name'):
            desk.boot(command.text)
        elif command.text.startswith('socat'):
            desk.open(command.text)
        elif command.text not in DONE:
            shown = [VERSION.sub('N', line)
                     for line in desk.shell(command.text)]
            wanted = [VERSION.sub('N', line) for line in command.answer]
            require(wanted in ([], shown),
                    f'{command.text}: {shown}, not {wanted}')

    def _type_json(self, desk: Desk, command: Command) -> None:
        if not desk.is_open():
            self.open(desk)
        answer, shown = desk.type(command.text), command.shown()
        if shown is not None and command.json()['execute'] != 'query-wsm':
            require(answer == shown['return'], f'{command.text}: {answer}')

    def open(self, desk: Desk) -> None:
        """As section 1 says, at any host."""
        for command in self.commands('1.'):
            if command.text.startswith('socat'):
                desk.open(command.text)
            elif command.monitor:
                desk.type(command.text)

    def begin(self) -> None:
        """Up to the running guest at alpha, and an image at beta."""
        self.walk('0.')
        self.alpha.shell(f'qemu-img create -q -f qcow2 {IMAGE} 1G')
        self.walk('1.')
        self.scene.guest.wait_ready()
        self.scene.guest.fill(0, 0, 32 * MIB)
        self.walk('2.')

    def incoming(self, defer: bool = False) -> None:
        """Start QEMU at beta, as section 3 says at first or in the end."""
        for command in self.commands('3.'):
            if not command.monitor:
                self.type(replace(command, text=re.sub(
                    r'-incoming \S+', '-incoming defer',
                    command.text)) if defer else command)
        self.open(self.beta)    # it answers when the port is there

    def arrive(self) -> None:
        """The guest is at beta, with all that it had."""
        self.alpha.wait_status('completed')
        self.beta.wait_status('completed')
        require(self.beta.execute('query-status')['running'],
                'the guest does not run at beta')
        self.scene.guest.wait_progress(beats=3)
        self.scene.guest.stop()
        self.scene.guest.verify()

    def close(self) -> None:
        for desk in (self.alpha, self.beta):
            desk.kill()


def guide_test(function: Callable[[Walk], None]) -> None:
    """Make a test of a way through the guide."""
    def run(scene: Scene) -> None:
        walk = Walk(scene)
        try:
            function(walk)
        finally:
            walk.close()

    run.__name__, run.__doc__ = function.__name__, function.__doc__
    test()(run)


@guide_test
def guide_move(walk: Walk) -> None:
    """The user guide: a move; then beta is lost, the old copy adopted."""
    walk.begin()
    walk.incoming()
    walk.walk('4.')
    walk.walk('5.')
    walk.arrive()
    walk.walk('6.')
    walk.alpha.ended()
    walk.beta.kill()
    walk.walk('1.')
    require(not walk.alpha.execute('query-status')['running'], 'it runs')
    require('The guest was not started' in walk.alpha.errors(),
            walk.alpha.errors())
    walk.walk('The stale copy')
    require(walk.alpha.execute('query-status')['running'], 'it is paused')


@guide_test
def guide_options(walk: Walk) -> None:
    """The user guide: options, chosen disks, a basis, and TLS."""
    walk.begin()
    walk.incoming(defer=True)
    walk.walk('TLS', but=lambda command: command.monitor)
    shutil.copytree(walk.alpha.path('etc/qemu-psk'),
                    walk.beta.path('etc/qemu-psk'))
    walk.walk('TLS', but=lambda command: not command.monitor)
    for command in walk.commands('TLS'):
        if command.monitor:
            walk.alpha.type(command.text.replace('server', 'client'))
    walk.walk('3.', 'migrate-incoming')
    for title in ('Options', 'Several disks', 'Moving back',
                  'Where sync points'):
        walk.walk(title)
    walk.walk('4.')
    walk.arrive()


@guide_test
def guide_cancel(walk: Walk) -> None:
    """The user guide: a migration is stopped, and the guest runs on."""
    walk.begin()
    walk.incoming()
    walk.alpha.execute('wsm-set-options', bandwidth=MIB)
    walk.walk('4.')
    walk.alpha.wait_status('active')
    walk.walk('Stop it')
    walk.alpha.wait_status('cancelled')
    walk.scene.guest.wait_progress(beats=3)
    walk.scene.guest.verify()


@guide_test
def guide_recover(walk: Walk) -> None:
    """The user guide: a link that swallows all in post-copy; recovered."""
    walk.begin()
    walk.incoming()
    walk.scene.guest.start(**LOAD)
    walk.alpha.execute('wsm-set-options', **{'max-residue': 1000000,
                                             'x-push-delay': 20})
    walk.walk('4.')
    walk.alpha.wait_status('postcopy-active')
    walk.link.set_up(False)
    walk.walk('When something', 'yank', 'migrate-pause')
    for desk in (walk.alpha, walk.beta):
        desk.wait_status('postcopy-paused')
    walk.link.set_up(True)
    walk.walk('When something', 'migrate-recover', 'migrate')
    walk.alpha.execute('wsm-set-options', **{'x-push-delay': 0})
    walk.arrive()


@test(needs_wsm=False)
def guide_complete(_scene: Scene) -> None:
    """No section of the user guide with commands is without a test."""
    walked = ('0.', '1.', '2.', '3.', '4.', '5.', '6.',
              'Moving back', 'The stale copy', 'Where sync points', 'Options',
              'Several disks', 'TLS', 'Stop it', 'When something',
              # The same commands, with more hosts: templates*, ring*
              'Several guests', 'A ring',
              # Needs a block node of one's own: map-node-*
              'A map on a block node',
              # Programs of their own: served-*, rejoined-*, finished-*
              'The source was killed', 'The destination was killed')
    left = [title for title in guide.read() if not title.startswith(walked)]
    require(not left, f'{left}')
