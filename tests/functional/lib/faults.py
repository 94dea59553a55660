# SPDX-License-Identifier: GPL-2.0-or-later
"""A move by wsmctl that is held in a phase, what can break it, and the laws.

The laws hold whatever was broken: never two copies of the guest run, no block
is lost that failure-modes.md does not give up, and nothing is left behind.
"""

import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Iterator, Optional

from dev.rig.basics import (TIMEOUT, TestFailure, require, run, wait_until)
from dev.rig.cluster import NAMES, VM, Cluster
from dev.rig.image import MIB
from dev.rig.qmp import Qmp, QmpClosed
from dev.rig.scene import Scene
from dev.rig.wire import Type
from wsm import durable
from wsm.agent import vmfind
from tests.functional.lib.hold import SendGate
from tests.functional.lib.moves import BUSY_RAM, LOAD, fill_half

QUIET = {**LOAD, 'rate': 100}
PORTS = range(47000, 47100)     # of migrations, as agent.toml has them
LONG_CUT = 30.0                 # s, of those cases that are about a time


def other_of(name: str) -> str:
    """The other host."""
    return NAMES[1 - NAMES.index(name)]


class FaultCluster(Cluster):
    """Two hosts whose QEMUs' messages can be held."""

    # Files of a cluster that was made once, with "@" for its folder: to join
    # takes longer than all else that a test does
    made: dict[str, str] = {}

    def __init__(self, scene: Scene) -> None:
        self.gates = {name: SendGate(scene.folder, name) for name in NAMES}
        scene.config = self.gates['alpha'].machine(scene.config)
        super().__init__(scene)

    def program(self, name: str) -> Path:
        return self.gates[name].program(self.scene.binary)

    def join(self) -> None:
        folder = self.scene.folder
        if not self.made:
            super().join()
            for path in (*self.home.rglob('*'), *folder.glob('*/etc/**/*')):
                if path.is_file():
                    self.made[str(path.relative_to(folder))] = (
                        path.read_text('utf-8').replace(str(folder), '@'))
            return
        for name in NAMES:
            self.program(name)
        for name, text in self.made.items():
            durable.write(folder / name,
                          text.replace('@', str(folder)).encode())

    def image(self, name: str) -> Path:
        """The guest's image at a host."""
        return (self.scene.folder / 'source-vd0.raw' if name == 'alpha'
                else self.folder(name) / f'images/{VM}/vd0.raw')

    def monitor(self, name: str) -> Qmp:
        """The monitor for people of the QEMU that an agent has started."""
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(self.run_folder(name) / 'rescue.qmp'))
        return Qmp(sock)

    def qemus(self) -> list[int]:
        """All QEMUs of this test that live, or wait to be let start."""
        found = []
        for entry in os.listdir('/proc'):
            words = vmfind.read_argv(int(entry)) if entry.isdigit() else None
            if words and '-name' in words and any(
                    str(self.scene.folder) in word for word in words):
                found.append(int(entry))
        return found

    def left(self, where: str, ports: range) -> Iterator[str]:
        """What a move has left at any host, the guest being at one."""
        other = other_of(where)
        yield from (f'{other}: {each}' for each in self.leftovers(other))
        if len(self.qemus()) != 1:
            yield f'QEMUs: {self.qemus()}'
        for name in NAMES:
            folder = self.folder(name)
            yield from (f'{name}: key {path}'
                        for path in (folder / 'run').glob('move/*'))
            yield from (str(path) for path in folder.rglob('.new-*'))
            text = run(*self.hosts[name].prefix(), 'ss', '-tnlH')
            yield from (f'{name}: port {port}' for port in ports
                        if f':{port} ' in text)
            yield from (f'{name}: open move {path.name}' for path in
                        (folder / 'state/move').glob('*.json')
                        if '"ended": ""' in path.read_text('ascii'))
        yield from (str(path) for path in (self.home / 'moves').iterdir()
                    if path.suffix != '.json')


class Trip:
    """A move of the guest to the other host, that can be held in a phase."""

    def __init__(self, cluster: FaultCluster, phase: str, back: bool,
                 patient: bool = False) -> None:
        """@patient: QEMU stands still for as long as the test lets it."""
        self.cluster = cluster
        self.guest = cluster.scene.guest
        self.phase = phase
        self.back = back
        self.patient = patient
        self.origin, self.target = NAMES[::-1] if back else NAMES
        self.vm = cluster.guest()
        self.source = self.vm.qmp
        self.reboots = 0            # of the guest, those that are no fault
        self.content = ''           # of the disk, when a QEMU was killed
        fill_half(cluster.scene)
        if back:
            self.guest.start(**QUIET)
            cluster.ctl('migrate', VM, '--to', 'beta')
            self.vm.wait_exit()
            self.source = cluster.monitor('beta')
            self.guest.wait_progress(writes=200)
            self.guest.stop()
        self.process = self._begin()

    # Phases

    def _begin(self) -> 'subprocess.Popen[str]':
        """Begin the move, so that it will stay in its phase."""
        phase, options = self.phase, dict[str, Any]()
        holds = {'prepare': (self.target, SendGate.START),
                 'setup': (self.target, Type.WELCOME),
                 'freeze': (self.target, Type.READY),
                 'go': (self.origin, Type.GO)}
        if phase in holds:
            name, what = holds[phase]
            self.cluster.gates[name].shut(what)
        if phase == 'disk-precopy':
            options = {'bandwidth': MIB // 8}
        elif phase == 'postcopy':
            options = {'x-push-delay': 1000, 'max-residue': 30000}
        elif phase == 'freeze' and self.patient:
            options = {'switchover-timeout': int(TIMEOUT * 1000)}
        busy = phase in ('ram-precopy', 'postcopy')
        self.guest.start(**QUIET, **(BUSY_RAM if busy else {}))
        self.source.cmd('wsm-set-options', options)
        return self.cluster.popen(
            'migrate', VM, '--to', self.target, '--retries', '0', '--wait',
            *(('--downtime', '1', '--rate', '16M') if busy else ()))

    def wait(self) -> None:
        """Wait until it is held in its phase, and be sure of it."""
        gates = self.cluster.gates
        if self.phase == 'prepare':
            wait_until(lambda: gates[self.target].held(SendGate.START),
                       'the destination is being started')
        elif self.phase == 'postcopy':
            self._wait_source('ram-precopy')
            wait_until(lambda: self.total('dirty') > MIB // 4, 'dirty blocks')
            self.faster_memory()
            self._wait_source('postcopy')
            with contextlib.closing(self.cluster.monitor(self.target)) as qmp:
                wait_until(lambda: phase_of(qmp) == 'postcopy',
                           'GO has arrived')
                require(missing(qmp) > 0, 'no block is missing')
        else:
            self._wait_source('postcopy' if self.phase == 'go'
                              else self.phase)
        if self.phase == 'disk-precopy':
            wait_until(lambda: self.total('sent') > 0, 'disk data is sent')
        for phase, name, what in (
                ('setup', self.target, Type.WELCOME),
                ('freeze', self.target, Type.READY),
                ('go', self.origin, Type.GO)):
            if self.phase == phase:
                wait_until(lambda name=name, what=what:     # type: ignore
                           gates[name].held(what), f'{what!r} is held')

    def _wait_source(self, phase: str) -> None:
        def there() -> bool:
            status = self.process.poll()
            if status is not None:
                raise TestFailure(f'wsmctl ended: {status} '
                                  f'{self.process.communicate()}')
            return phase_of(self.source) == phase

        wait_until(there, f'the source is in {phase}')

    def total(self, name: str) -> int:
        """A counter of query-wsm over all disks."""
        return sum(disk.get(name, 0) for disk in
                   self.source.cmd('query-wsm')['disks'])

    def faster_memory(self) -> None:
        """Let memory converge."""
        self.source.cmd('migrate-set-parameters', {
            'downtime-limit': 2000, 'max-bandwidth': 1 << 40})

    def release(self) -> None:
        """Hold it no longer."""
        for gate in self.cluster.gates.values():
            gate.open()
        with contextlib.suppress(QmpClosed):
            self.faster_memory()
            self.source.cmd('wsm-set-options',
                            {'bandwidth': 0, 'x-push-delay': 0})

    def source_status(self) -> str:
        """What query-migrate says at the source, or that it has ended."""
        try:
            return str(self.source.cmd('query-migrate').get('status'))
        except QmpClosed:
            return 'ended'

    # What breaks

    def source_pid(self) -> int:
        """The source's QEMU."""
        pid = (self.cluster.qemu_pid(self.origin) if self.back
               else self.vm.pid)
        assert pid
        return pid

    def kill_wsmctl(self) -> None:
        """Then another one goes on: at once, or when all is over."""
        self.process.kill()
        self.process.communicate()
        if self.back:
            self.release()
        self.process = self.cluster.popen('recover', VM)
        self.release()

    def kill_agent(self, name: str) -> None:
        """It comes back in the same phase, or when QEMU has gone on."""
        self.cluster.stop_agent(name, signal.SIGKILL)
        if self.back:
            self.release()
            if self.phase != 'prepare':
                wait_until(lambda: self.source_status() in (
                    'completed', 'ended'), 'QEMU needs no agent')
        self.cluster.start_agent(name)
        self.cluster.wait_agent(name)
        self.release()

    def kill_source_agent(self) -> None:
        """The agent of the host where the guest is."""
        self.kill_agent(self.origin)

    def kill_destination_agent(self) -> None:
        """The agent of the host to which it goes."""
        self.kill_agent(self.target)

    def kill_source_qemu(self) -> None:
        """As the out-of-memory killer does."""
        os.kill(self.source_pid(), signal.SIGKILL)
        self.content = digest(self.cluster.image(self.origin))
        self.release()

    def kill_destination_qemu(self) -> None:
        """One that waits to be let start dies, too."""
        mine = self.source_pid()
        pids = [pid for pid in self.cluster.qemus() if pid != mine]
        require(len(pids) == 1, f'QEMUs: {pids}')
        os.kill(pids[0], signal.SIGKILL)
        wait_until(lambda: vmfind.process(pids[0]) is None, 'it is dead')
        self.content = digest(self.cluster.image(self.origin))
        self.release()

    def link_cut(self) -> None:
        """All connections break, and there are no new ones for a while."""
        link = self.cluster.link
        link.set_up(False)
        link.reset()
        if self.phase == 'prepare':
            self.release()
        if self.back:
            time.sleep(LONG_CUT)
        elif self.phase != 'prepare':
            wait_until(lambda: self.source_status() in (
                'failed', 'postcopy-paused'), 'the source notices')
        self.release()
        link.set_up(True)

    def link_silent(self) -> None:
        """Packets are swallowed."""
        link = self.cluster.link
        link.set_silent(True)
        if self.phase == 'prepare':
            self.release()
        if self.ends_when_silent():
            wait_until(lambda: self.cluster.owner(self.origin) == 'owner',
                       'the move is cancelled')
        else:
            time.sleep(LONG_CUT)
        self.release()
        link.set_silent(False)

    def ends_when_silent(self) -> bool:
        """Whether wsmctl, which is at alpha, sees the source standing still."""
        return not self.back and self.phase in EARLY


EARLY = ('setup', 'disk-precopy', 'ram-precopy', 'freeze')
PHASES = ('prepare', *EARLY, 'go', 'postcopy')
FAULTS = {'kill-wsmctl': Trip.kill_wsmctl,
          'kill-source-agent': Trip.kill_source_agent,
          'kill-destination-agent': Trip.kill_destination_agent,
          'kill-source-qemu': Trip.kill_source_qemu,
          'kill-destination-qemu': Trip.kill_destination_qemu,
          'link-cut': Trip.link_cut, 'link-silent': Trip.link_silent}


def phase_of(qmp: Qmp) -> str:
    """The phase of a move at one end."""
    return str(qmp.cmd('query-wsm')['phase'])


def missing(qmp: Qmp) -> int:
    """Bytes that a destination lacks."""
    return sum(disk.get('missing', 0)
               for disk in qmp.cmd('query-wsm')['disks'])


def outcomes(fault: str, phase: str, back: bool) -> tuple[str, ...]:
    """What may become of the move, and so what wsmctl says."""
    if fault == 'kill-source-qemu':
        return ({'prepare': 'ended', 'postcopy': 'source-lost'}.get(
            phase, 'booted'),)
    if fault == 'kill-destination-qemu':
        return ('destination-lost' if phase in ('go', 'postcopy')
                else 'stays',)
    if fault.startswith('link') and phase in EARLY:
        # When the link is back: who looks first, wsmctl at a source that has
        # stood still, or TCP?
        return ('stays', 'moved') if back and fault == 'link-silent' else (
            'stays',)
    return ('moved',)


# How each ends: exit status and words of wsmctl

SAID = {
    'moved': (0, 'runs on {target}'),
    'stays': (1, 'stays on {origin}'),
    'booted': (1, 'it is booted again'),
    'ended': (1, 'has ended at the source before it moved'),
    'source-lost': (4, 'only in its images'),
    'destination-lost': (4, 'memory, and what was written since, is lost'),
}


def digest(path: Path) -> str:
    """What is in an image."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def inode(path: Path) -> Optional[int]:
    """Which file it is, None if none."""
    return path.stat().st_ino if path.exists() else None


def check(trip: Trip, fault: str) -> None:
    """The move ends as it should; then the guest goes where it was to go."""
    cluster = trip.cluster
    possible = outcomes(fault, trip.phase, trip.back)
    with contextlib.suppress(subprocess.TimeoutExpired):
        trip.process.wait(TIMEOUT)
    result = next((each for each in possible
                   if SAID[each][0] == trip.process.returncode), possible[0])
    status, words = SAID[result]
    text = cluster.end(trip.process, status, f'after {fault}')
    require(words.format(target=trip.target, origin=trip.origin) in text,
            f'{result} is not said: {text}')
    where = person_decides(trip, result)
    if result in ('moved', 'stays'):
        trip.guest.stop()
        trip.guest.verify()
    # A QEMU that waits for blocks for ever listens for who may bring them
    kept = result == 'source-lost' and where == trip.target
    expect_only_at(cluster, where, range(0) if kept else PORTS)
    if where != trip.target:
        then_moves(trip)
    if trip.reboots:
        require(digest(cluster.image(trip.target)) == trip.content,
                'what was on the disk has not arrived')
    expect_one_guest(trip)


def person_decides(trip: Trip, result: str) -> str:
    """What a person must do after a loss; return where the guest is."""
    cluster = trip.cluster
    if result == 'moved':
        return trip.target
    if result == 'source-lost' and not trip.back:
        cluster.ctl('recover', VM, '--keep', '--accept-loss')
        return trip.target
    if result in ('source-lost', 'destination-lost'):
        text = cluster.ctl('recover', VM, '--from-source', status=4)
        require('--accept-loss' in text, text)
        cluster.ctl('recover', VM, '--from-source', '--accept-loss')
    elif result == 'ended':
        cluster.ctl('vm', 'start', VM)
    if result != 'stays':
        trip.reboots = 1
        trip.guest.wait_ready()
    return trip.origin


def then_moves(trip: Trip) -> None:
    """What was begun is used by the next attempt, which goes well."""
    cluster = trip.cluster
    before = inode(cluster.image(trip.target))
    cluster.ctl('migrate', VM, '--to', trip.target)
    if before:
        require(inode(cluster.image(trip.target)) == before,
                'half an image was not used')
    trip.guest.wait_progress(beats=10)
    if not trip.reboots:
        trip.guest.verify()
    expect_only_at(cluster, trip.target)
    states = [copy['state'] for copy in cluster.json('image', 'list')]
    require(states == ['handed-over'], f'copies: {states}')


def expect_only_at(cluster: FaultCluster, where: str,
                   ports: range = PORTS) -> None:
    """The guest is at one host, and nothing of the move at any."""
    other = other_of(where)
    try:
        wait_until(lambda: not list(cluster.left(where, ports)), '', 30)
    except TestFailure as err:
        raise TestFailure(f'left behind: {list(cluster.left(where, ports))}'
                          f'{cluster.logs()}') from err
    require(cluster.owner(where) == 'owner', f'{where}: '
            f'{cluster.owner(where)}')
    require(cluster.owner(other) in ('gone', 'none'), f'{other}: '
            f'{cluster.owner(other)}')
    seen = cluster.json('status')
    require([(row['host'], row['runs']) for row in seen['vms']]
            == [(where, True)] and not seen['moves'], f'status: {seen}')


def expect_one_guest(trip: Trip) -> None:
    """What was heard of the guest comes from one that runs once."""
    beats = trip.guest.beats()
    found = restarts([beat.sequence for beat in beats])
    falls = [f'{b.sequence} came {b.time - a.time:.3f} s after {a.sequence}'
             for a, b in zip(beats, beats[1:]) if b.sequence < a.sequence]
    require(found == trip.reboots, f'two guests were heard: of {len(beats)} '
            f'{falls}, {trip.reboots} reboots')


def restarts(numbers: list[int]) -> int:
    """
    How often a guest began anew, or was heard beside another one.

    A packet that comes late is neither: nobody has heard its number, and the
    next one goes on.  QEMU keeps one when the listener's queue is full, and
    sends it when the guest is elsewhere already; a second guest repeats what
    the first one has said.
    """
    count, last, heard = 0, 0, set[int]()
    for number, following in zip(numbers, [*numbers[1:], 0]):
        late = number not in heard and following > last
        heard.add(number)
        if number < last and late:
            continue
        count += number < last
        last = number
    return count
