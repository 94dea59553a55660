# SPDX-License-Identifier: GPL-2.0-or-later
"""The property test: random moves, writes, kills and tampering.

After each move every byte is compared.  The tested QEMU is
build/qemu-system-x86_64, or that named by $WSM_QEMU, with qemu-img and
qemu-io beside it.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Iterator, Optional

from dev.rig import guest_image
from tests.property.steps import step
from tests.property.world import World

LINES = 25              # of the history, when a step fails


class Failed(Exception):
    """A step found something; the report has been printed."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.number = number


def report(world: World, seed: str, first: int, number: int,
           keep: bool) -> None:
    """Say what was found and how to find it again."""
    traceback.print_exc(file=sys.stdout)
    print(f'# seed {seed}, step {number}; the last of what was done:')
    for line in world.history[-LINES:]:
        print(f'#   {line}')
    for machine in world.machines()[-2:]:
        print(f'# {machine.name}: {machine.condition()}')
    again = f'--first {first} ' if first else ''
    print(f'# again: tests/property/run --seed {seed} {again}'
          f'--steps {number + 1 - first} --keep')
    if keep:
        print(f'# all is kept in {world.folder}')


def run_seed(seed: str, first: int, last: int, deadline: float,
             keep: bool) -> tuple[int, dict[str, int]]:
    """Run steps [@first, @last).  Returns how many, and what they did."""
    folder = Path(tempfile.mkdtemp(prefix='wsm-prop-'))
    world: Optional[World] = None
    number = first
    passed = False
    try:
        world = World(folder, seed)
        while number < last and time.monotonic() < deadline:
            step(world, random.Random(f'{seed}:{number}'), number)
            number += 1
        world.compare(world.vm, world.here)
        passed = True
    except (Exception, KeyboardInterrupt) as err:
        if world is None:
            raise
        report(world, seed, first, number, keep)
        raise Failed(number, str(err)) from err
    finally:
        if world is not None:
            world.close()
        if passed or not keep:
            shutil.rmtree(folder)
    return number - first, world.counts


def shorter(seed: str, number: int) -> None:
    """Look for a shorter run that fails as well."""
    for back in (2, 5, 10, 20, 40, 80):
        if back > number:
            return
        try:
            run_seed(seed, number - back, number + 1, float('inf'), False)
        except Failed:
            return


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Random moves of a guest between hosts whose images are '
                    'stale, broken or tampered with.')
    parser.add_argument('--seed', action='append', default=[],
                        help='what all is drawn from; "random" for a new one; '
                             'may be given several times')
    parser.add_argument('--steps', type=int, default=100, metavar='N',
                        help='steps of each seed (%(default)s)')
    parser.add_argument('--first', type=int, default=0, metavar='N',
                        help='begin with step N, on new images')
    parser.add_argument('--minutes', type=float, metavar='M',
                        help='begin no new step after this time; without '
                             '--seed, go on with new seeds until then')
    parser.add_argument('--keep', action='store_true',
                        help='keep the folder if a step fails')
    parser.add_argument('--shrink', action='store_true',
                        help='then look for a shorter run that fails')
    return parser.parse_args()


def seeds(args: argparse.Namespace) -> Iterator[str]:
    """Those that were asked for; with --minutes alone new ones for ever."""
    names = args.seed or ['random']
    while True:
        for name in names:
            yield (str(random.SystemRandom().randrange(10 ** 9))
                   if name == 'random' else name)
        if args.seed or not args.minutes:
            return


def main() -> int:
    args = arguments()
    guest_image.build()         # the firmware
    begin = time.monotonic()
    deadline = begin + args.minutes * 60 if args.minutes else float('inf')
    for seed in seeds(args):
        if time.monotonic() >= deadline:
            break
        print(f'# seed {seed}', flush=True)
        try:
            done, counts = run_seed(seed, args.first, args.first + args.steps,
                                    deadline, args.keep)
        except Failed as err:
            print(f'not ok property-{seed} {err}', flush=True)
            if args.shrink:
                shorter(seed, err.number)
            return 1
        what = ', '.join(f'{name} {count}'
                         for name, count in sorted(counts.items()))
        print(f'# {what}')
        print(f'ok property-{seed} {done} steps, '
              f'{time.monotonic() - begin:.0f} s', flush=True)
    return 0
