# SPDX-License-Identifier: GPL-2.0-or-later
"""What a case of the matrix is played with: hosts, guest, and what can stop."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from dev.rig.basics import SLOWNESS, wait_until
from dev.rig.image import MIB
from dev.rig.scene import Scene, begin, wait_phase
from dev.rig.vm import DiskConfig, MachineConfig
from dev.rig.wire import Type
from tests.crash.flushed import Rounds
from tests.crash.load import begin_rounds
from tests.functional.lib.hold import (FlushGate, SendGate, UnlinkGate,
                                       preloaded, preloading)
from tests.functional.lib.rejoin import maps_are_written
from tests.functional.lib.setups import Setup, caps, multifd, nothing, with_tls
from tests.functional.lib.tls import NAME

HERE = Path(__file__).parent
SIZE = 16 * MIB
WRITES, PACE = 8, 100
LONG_POSTCOPY: dict[str, Any] = {'bandwidth': 16 * MIB,
                                 'x_push_delay': round(1000 * SLOWNESS),
                                 'max_residue': 30000,
                                 'switchover_timeout': round(10000 * SLOWNESS)}


def disks(*formats: str, size: int = SIZE, **options: Any) -> MachineConfig:
    """A machine with small disks."""
    return MachineConfig(tuple(
        DiskConfig(f'vd{number}', fmt=fmt, size=size, **options)
        for number, fmt in enumerate(formats)))


@dataclass(frozen=True)
class Variant:
    """A kind of disks, or of migration."""

    config: MachineConfig
    setup: Setup = nothing
    tls: bool = False
    memory: bool = True     # all of it is there when the guest runs


VARIANTS = {
    'raw': Variant(disks('raw')),
    'qcow2': Variant(disks('qcow2')),
    'two-disks': Variant(disks('raw', 'qcow2')),
    'iothread': Variant(MachineConfig(
        disks('raw', 'qcow2', iothread='io0').disks, ('io0',))),
    'tls': Variant(disks('raw'), with_tls(nothing), tls=True),
    'multifd': Variant(disks('raw'), multifd()),
    'postcopy-ram': Variant(disks('raw', 'raw'), caps('postcopy-ram'),
                            memory=False),
    'direct': Variant(disks('raw', 'qcow2', cache='none')),
    'writethrough': Variant(disks('qcow2', extra=(('write-cache', 'off'),))),
}

# Of power cuts: disks that are judged fast
CUT_VARIANTS = {
    'raw': Variant(disks('raw', size=4 * MIB)),
    'qcow2': Variant(disks('qcow2', size=4 * MIB)),
    'two-disks': Variant(disks('raw', 'qcow2', size=4 * MIB)),
}


@dataclass
class Gates:
    """What can wait in the destination's QEMU."""

    flush: FlushGate
    folder: FlushGate       # a folder's fsync
    record: UnlinkGate
    map: UnlinkGate

    @classmethod
    def of(cls, scene: Scene) -> 'Gates':
        """Make them."""
        folder = scene.folder
        return cls(FlushGate(folder), FlushGate(folder, sync=True),
                   UnlinkGate(folder), UnlinkGate(folder, maps=True))

    def all(self) -> list[FlushGate]:
        """Each of them."""
        return [self.flush, self.folder, self.record, self.map]


@dataclass
class Setting:
    """A guest at a source, and a destination that waits for it."""

    scene: Scene
    variant: Variant
    seed: int
    folders: Optional[tuple[Path, Path]] = None     # of images
    skipped: str = ''       # the destination does not sync files named so
    shut: list[FlushGate] = field(default_factory=list)

    def __post_init__(self) -> None:
        scene, config = self.scene, self.variant.config
        self.sends = SendGate(scene.folder, 'messages')
        if self.variant.tls:
            config = self.sends.machine(config)
        scene.config = config
        if self.folders:
            scene.image_folder = self.folders[0]
        self.source = scene.source()
        sectors = tuple(scene.guest.sectors())
        # A third of what rounds write to are holes first
        self.plan = Rounds(self.seed, WRITES, sectors,
                           tuple(count // 2 for count in sectors),
                           tuple((0, count // 4 * 3) for count in sectors))
        begin_rounds(scene.guest, self.plan, PACE)
        scene.guest.start(readers=1, rrate=20)
        self.gates = Gates.of(scene)
        for gate in self.gates.all() if not self.skipped else ():
            config = gate.machine(config)
        if self.skipped:
            library = preloaded('skip_sync', scene.folder, HERE)
            config = preloading(config, library, 'WSM_SKIP_SYNC', self.skipped)
        if self.folders:
            scene.image_folder = self.folders[1]
        self.destination = scene.destination('defer', config=config,
                                             crash_safe='on')
        self.variant.setup(scene, self.source, self.destination)
        self.destination.qmp.cmd('migrate-incoming', uri='tcp:127.0.0.1:0')
        self.relay = scene.make_relay(self.destination)

    @property
    def tls_options(self) -> list[str]:
        """What wsm-serve must be told."""
        return (['--tls-creds', str(self.scene.folder / 'tls'),
                 '--tls-hostname', NAME] if self.variant.tls else [])

    def begin(self) -> None:
        """Begin the migration; it will have a long post-copy."""
        self.scene.guest.wait_rounds(5)
        begin(self.source, self.relay.uri, **LONG_POSTCOPY)

    def hurry(self) -> None:
        """What is missing is sent at once."""
        self.source.qmp.cmd('wsm-set-options', x_push_delay=0, bandwidth=0)

    # Messages

    def hold(self, message: Type) -> None:
        """Stop all channels before messages of this type."""
        if self.variant.tls:
            self.sends.shut(message)
        else:
            self.relay.hold_at(message)

    def wait_held(self, message: Type) -> None:
        """Wait until one is there."""
        if self.variant.tls:
            wait_until(lambda: self.sends.held(message), f'{message.name}')
        else:
            self.relay.wait_held()

    def release(self) -> None:
        """Let messages pass, also those that wait."""
        self.sends.open()
        if not self.variant.tls:
            self.relay.hold_at()
            for connection in self.relay.connections:
                connection.resume()

    def release_but(self, message: Type) -> None:
        """Let messages pass but those of a type, from now on."""
        if self.variant.tls:
            self.sends.open()
            self.sends.shut(message)
        else:
            self.relay.hold_at(message)
            for connection in self.relay.connections:
                connection.resume()

    # Gates

    def close_gate(self, gate: FlushGate) -> None:
        """Shut one, until all is let go."""
        gate.shut()
        self.shut.append(gate)

    def let_go(self) -> None:
        """Nothing waits any more; what was on its way is lost, or comes late."""
        if self.seed % 2 == 0:
            self.relay.cut_all()
        while self.shut:
            self.shut.pop().open()
        self.release()

    # Phases

    def held_at(self, message: Type) -> None:
        """The migration has come to the first message of this type."""
        self.hold(message)
        self.begin()
        self.wait_held(message)

    def held_at_go(self) -> None:
        """The destination is ready, and GO is on its way."""
        self.held_at(Type.GO)

    def in_postcopy(self) -> None:
        """The guest runs at the destination, whose maps are committed."""
        self.begin()
        wait_phase(self.destination, 'postcopy')
        self.wait_committed()

    def wait_committed(self) -> None:
        """Wait until the maps say what is missing."""
        wait_until(lambda: maps_are_written(self.destination),
                   'the maps are written')
