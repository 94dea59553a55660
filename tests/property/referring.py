# SPDX-License-Identifier: GPL-2.0-or-later
"""Random moves whose memory is sent by reference, with faults on the way.

In each a guest moves, with settings that are drawn, to a QEMU that leaves it
paused: every byte of its memory is compared then, and of its disks.  What is
wrong at the destination, a block of the disk, a page of a set, a node of a
ring, is drawn as well, and when a channel breaks.
"""

import argparse
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

from dev.rig import guest_image
from dev.rig.basics import require, wait_until
from dev.rig.image import MIB
from dev.rig.relay import BLOCK
from dev.rig.scene import Scene, begin, finish, query, wait_phase
from dev.rig.vm import DiskConfig, MachineConfig, Vm
from tests.functional import test_keep, test_ring, test_templates
from tests.functional.lib import nodes, setups
from tests.functional.lib.hold import ReadGate
from tests.functional.lib.moves import LOAD
from tests.functional.lib.refer import (expect_referenced, listening, memory,
                                        moved, of_kind, paused,
                                        source_with_cache)

KINDS = ('disk', 'template')
PHASES = ('disk-precopy', 'ram-precopy')
BLOCK_FAULTS = (ReadGate.WRONG, ReadGate.FAIL, ReadGate.LATE)
SET_FAULTS: dict[str, Callable[[Path], None]] = {'set-wrong': test_templates.one_wrong_byte,
              'set-truncated': test_templates.truncated,
              'set-removed': test_templates.removed}
RING_FAULTS: dict[str, test_ring.Harm] = {'node-killed': test_ring.kill_one,
               'nodes-killed': test_ring.kill_all,
               'node-stopped': test_ring.stop_one,
               'nodes-stopped': test_ring.stop_all,
               'nodes-restarted': test_ring.restart_all,
               'nodes-poisoned': test_ring.poison,
               'nodes-shorten': test_ring.shorten}
ALL_WRONG = ('set-wrong', 'nodes-poisoned')


@dataclass(frozen=True)
class Journey:
    """What is drawn for one guest."""
    fmt: str
    iothread: bool
    kinds: tuple[str, ...]
    ring: bool                  # where the templates are
    tls: bool
    channels: int               # of multifd
    adaptive: bool
    packing: bool               # of disks
    rate: int                   # bytes of memory a second
    load: bool                  # the guest writes to disk and memory
    kept: int                   # bytes of its disk that it has in memory
    fault: str                  # at the destination; '' is none
    fault_at: str               # phase
    cut: str                    # phase in which a block channel breaks, or ''
    back: bool                  # and home again, to the memory it left


def faults_of(kinds: tuple[str, ...], ring: bool) -> list[str]:
    """None is as likely as all of them."""
    found: list[str] = []
    if 'disk' in kinds:
        found += BLOCK_FAULTS
    if 'template' in kinds:
        found += [*RING_FAULTS] if ring else [*SET_FAULTS]
    return found + [''] * len(found)


def draw(rng: random.Random) -> Journey:
    kinds = tuple(rng.choice([('disk',), ('template',), KINDS]))
    ring = 'template' in kinds and rng.random() < 0.5
    tls = rng.random() < 0.25
    return Journey(
        fmt=rng.choice(['raw', 'qcow2']), iothread=rng.random() < 0.3,
        kinds=kinds, ring=ring, tls=tls,
        channels=rng.randint(1, 4), adaptive=rng.random() < 0.3,
        packing=rng.random() < 0.3, rate=rng.choice([16, 32, 64, 256]) * MIB,
        load=rng.random() < 0.6, kept=rng.choice([1, 4, 16]) * MIB,
        fault=rng.choice(faults_of(kinds, ring)),
        fault_at=rng.choice(PHASES),
        # The relay cannot tell channels apart that are encrypted
        cut='' if tls else rng.choice(['', '', *PHASES]),
        back=not tls and rng.random() < 0.4)


def config_of(journey: Journey) -> MachineConfig:
    thread = 'io0' if journey.iothread else ''
    return MachineConfig((DiskConfig(fmt=journey.fmt, iothread=thread),),
                         iothreads=(thread,) if thread else ())


def options_of(journey: Journey) -> dict[str, Any]:
    return {'memory_references': list(journey.kinds),
            'memory_adaptive': journey.adaptive,
            'disk_packing': journey.packing, 'keep_memory': journey.back}


class Stage:
    """Where one journey is made."""

    def __init__(self, scene: Scene, journey: Journey) -> None:
        self.scene = scene
        self.journey = journey
        self.stack = ExitStack()
        self.gate = ReadGate(scene.folder)
        self.pages: Optional[Path] = None
        self.servers: list[nodes.Memcached] = []

    def source(self) -> Vm:
        vm = source_with_cache(self.scene, self.journey.kept)
        vm.set_params(max_bandwidth=self.journey.rate)
        if 'template' in self.journey.kinds:
            scanned = test_templates.digest(vm)
            self.pages = test_templates.make_set(
                vm, [scanned, test_templates.twin_of(scanned)])
            test_templates.use(vm, self.pages.with_suffix('.idx'))
        if self.journey.load:
            self.scene.guest.start(**LOAD)
        return vm

    def destination(self, source: Vm) -> Vm:
        setup = setups.multifd(self.journey.channels)
        if self.journey.tls:
            setup = setups.with_tls(setup)
        vm = listening(self.scene, source, setup,
                       config=self.gate.machine(paused(self.scene)))
        if self.pages and self.journey.ring:
            self.servers = self.stack.enter_context(
                nodes.running(self.scene.folder))
            test_templates.tool('load', self.pages,
                                *nodes.on_command_line(self.servers))
            test_ring.use_ring(vm, self.pages, self.servers)
        elif self.pages:
            test_templates.use(vm, self.pages)
        return vm

    def harm(self) -> None:
        """Begin with the fault."""
        fault = self.journey.fault
        if fault in BLOCK_FAULTS:
            self.gate.shut(fault)
        elif fault in SET_FAULTS:
            assert self.pages
            SET_FAULTS[fault](self.pages)
        elif fault:
            assert self.pages
            RING_FAULTS[fault](self.servers, test_ring.hashes_of(
                self.pages.with_suffix('.list')))

    def heal(self, source: Vm) -> None:
        """
        Let blocks be right again once some was not, as else that goes on
        until the move is given up.
        """
        if self.journey.fault not in BLOCK_FAULTS:
            return
        wait_until(lambda: memory(source)['missed'] > 0 or ended(source),
                   'a block that is missed')
        self.gate.open(self.journey.fault)


def ended(vm: Vm) -> bool:
    return query(vm)['phase'] in ('freeze', 'postcopy', 'completed', 'failed')


def begin_and_harm(stage: Stage, source: Vm, destination: Vm) -> None:
    """Begin to move; what is drawn happens in its phase."""
    journey, uri = stage.journey, stage.scene.uri(destination)
    relay = stage.scene.make_relay(destination) if journey.cut else None
    begin(source, relay.uri if relay else uri, **options_of(journey))
    for phase in PHASES:
        wait_phase(source, phase)
        if journey.fault_at == phase:
            stage.harm()
        if relay and journey.cut == phase:
            # None is left if all is over by now
            for connection in relay.of_kind(BLOCK)[-1:]:
                connection.cut()
    stage.heal(source)


def expect_found(journey: Journey, destination: Vm) -> None:
    """Pages that were wrong all the time were found to be wrong."""
    there = of_kind(destination, 'template')
    if journey.fault in ALL_WRONG and journey.fault_at == PHASES[0]:
        require(there['wrong'] > 0 or not there['referenced'],
                f'{journey.fault}: {there}')


def travel(stage: Stage) -> Counter[str]:
    """Make the journey, and compare; returns what was seen."""
    journey, scene = stage.journey, stage.scene
    source = stage.source()
    destination = stage.destination(source)
    begin_and_harm(stage, source, destination)
    finish(source, destination)
    expect_referenced(source, destination, 0)
    expect_found(journey, destination)
    seen = tally(source, destination)
    if journey.back:
        # The guest goes home before anybody ends the QEMU that it left
        return seen + home(stage, source, destination)
    moved(scene, source, destination)
    return seen


def home(stage: Stage, left: Vm, here: Vm) -> Counter[str]:
    """Back to the images and the memory that it left."""
    test_keep.wait_kept(left)
    here.qmp.cmd('cont')
    stage.scene.guest.wait_progress(beats=10)
    left.quit()
    again = test_keep.back(stage.scene, here, left)
    finish(here, again)
    expect_referenced(here, again, 0)
    seen = tally(here, again)
    moved(stage.scene, here, again)
    return seen


def tally(source: Vm, destination: Vm) -> Counter[str]:
    """How much was referred to, and what the destination did not believe."""
    seen = Counter({'moves': 1})
    for kind in (*KINDS, 'image'):
        seen[f'MiB by {kind}'] += of_kind(source, kind)['referenced'] // MIB
        for name in ('missed', 'wrong', 'late'):
            seen[f'pages {name}'] += of_kind(destination, kind)[name] // 4096
    return seen


def run(seed: str, number: int, keep: bool) -> Counter[str]:
    """One journey; raises what went wrong, after a report."""
    journey = draw(random.Random(f'{seed}:{number}'))
    scene = Scene(config_of(journey))
    stage = Stage(scene, journey)
    passed = False
    try:
        with stage.stack:
            seen = travel(stage)
        passed = True
        return seen
    except (Exception, KeyboardInterrupt):
        traceback.print_exc(file=sys.stdout)
        print(f'# seed {seed}, journey {number}: {asdict(journey)}')
        print(scene.report())
        print(f'# again: tests/property/run-referring --seed {seed} '
              f'--first {number} --runs 1 --keep')
        raise
    finally:
        scene.close(keep and not passed)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Random moves whose memory is sent by reference.')
    parser.add_argument('--seed', default='1', help='what all is drawn from; '
                        '"random" for a new one (%(default)s)')
    parser.add_argument('--runs', type=int, default=10, metavar='N',
                        help='guests that move (%(default)s)')
    parser.add_argument('--first', type=int, default=0, metavar='N',
                        help='begin with guest N')
    parser.add_argument('--keep', action='store_true',
                        help='keep the folder if a move fails')
    return parser.parse_args()


def main() -> int:
    args = arguments()
    seed = args.seed if args.seed != 'random' else \
        str(random.SystemRandom().randrange(10 ** 9))
    guest_image.build()
    since = time.monotonic()
    seen: Counter[str] = Counter()
    for number in range(args.first, args.first + args.runs):
        try:
            seen += run(seed, number, args.keep)
        except Exception as err:    # pylint: disable=broad-exception-caught
            print(f'not ok referring-{seed} {number}: {err}', flush=True)
            return 1
    what = ', '.join(f'{name} {count}' for name, count in sorted(seen.items()))
    require(seen['moves'] >= args.runs, 'a guest did not move')
    print(f'# seed {seed}: {what}')
    print(f'ok referring-{seed} {args.runs} guests, '
          f'{time.monotonic() - since:.0f} s', flush=True)
    return 0
