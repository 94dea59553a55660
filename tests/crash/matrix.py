# SPDX-License-Identifier: GPL-2.0-or-later
"""The matrix: who dies x when x with which disks and which migration."""

import zlib
from typing import Callable, Collection, Iterator, Optional

from dev.rig.basics import TestFailure, require
from dev.rig.scene import Scene
from tests.crash.cuts import cut_everywhere, migrate
from tests.crash.endings import destination_lost, end_cuts
from tests.crash.moments import AFTER_GO, BEFORE_GO, Moment
from tests.crash.whose import OWNERS
from tests.crash.setting import CUT_VARIANTS, VARIANTS, Setting, Variant
from tests.crash.ways_out import WayOut
from tests.functional.lib.registry import add

Death = Callable[[Setting, WayOut], None]
DEATHS: dict[str, Death] = {}
# Of each moment and death so many variants, each in its turn
EACH = 2
ENDS = 20               # of cuts of each kind that are brought to an end
# What is not synced, so that the power cuts must find it
LIE_CUTS = 100
LIE_ENDS = 4
LIES = {'image': '.raw', 'map': '.wsm.map', 'record': '/b'}


def death(function: Death) -> Death:
    """Decorator: who dies, and the way out."""
    DEATHS[function.__name__.replace('_', '-')] = function
    return function


@death
def source(setting: Setting, way: WayOut) -> None:
    """The source dies."""
    setting.source.kill()
    setting.let_go()
    way.source_dead()


@death
def destination(setting: Setting, way: WayOut) -> None:
    """The destination dies."""
    setting.destination.kill()
    setting.let_go()
    way.destination_dead()


@death
def both(setting: Setting, way: WayOut) -> None:
    """Both die."""
    setting.source.kill()
    setting.destination.kill()
    setting.let_go()
    way.both_dead()


@death
def source_then_destination(setting: Setting, way: WayOut) -> None:
    """The source dies, and the destination when it is served."""
    setting.source.kill()
    setting.let_go()
    way.serve_and_kill()


@death
def destination_twice(setting: Setting, way: WayOut) -> None:
    """The destination dies, and again when it has rejoined."""
    setting.destination.kill()
    setting.let_go()
    way.twice = True
    way.destination_dead()


def case(moment: Moment, died: Death, variant: Variant,
         seed: int) -> Callable[[Scene], None]:
    """Play one case."""
    def function(scene: Scene) -> None:
        setting = Setting(scene, variant, seed)
        moment(setting)
        way = WayOut(setting)
        try:
            died(setting, way)
        except TestFailure as error:
            raise TestFailure(f'{error}\n(seed {seed}; the way out: '
                              f'{", ".join(way.taken) or "none yet"})'
                              ) from error
    what = (moment.__doc__ or '').rstrip('.'), died.__doc__
    function.__doc__ = ': '.join(filter(None, what))
    return function


def combinations() -> Iterator[tuple[str, Moment, Death, Variant]]:
    """Each moment with each death; variants take turns."""
    names = list(VARIANTS)
    moments = {**BEFORE_GO, **AFTER_GO}
    for place, (when, moment) in enumerate(moments.items()):
        for number, (who, died) in enumerate(DEATHS.items()):
            if died is destination_twice and when in BEFORE_GO:
                continue        # there is nothing to rejoin
            for turn in range(EACH):
                name = names[(place * 4 + number * 2 + turn) % len(names)]
                yield (f'{who}.{when}.{name}', moment, died, VARIANTS[name])


def power_cut(variant: Variant, seed: int, count: Optional[int],
              draws: int) -> Callable[[Scene], None]:
    """Cut the power at so many points, or everywhere."""
    def function(scene: Scene) -> None:
        moved = migrate(scene, variant, seed)
        whose = cut_everywhere(moved, seed, scene.folder / 'cut', count, draws)
        require(len(whose) == len(OWNERS), f'not all happened: {whose}')
        print(f'# {whose.total()} cuts; whose disk it was: {dict(whose)}',
              flush=True)
    where = 'each entry of the log' if count is None else f'{count} points'
    function.__doc__ = f'Power cuts at {where}.'
    return function


def power_cut_end(variant: Variant, seed: int,
                  count: int) -> Callable[[Scene], None]:
    """Cut the power, and bring that to an end."""
    def function(scene: Scene) -> None:
        moved = migrate(scene, variant, seed)
        ways = end_cuts(moved, seed, scene.folder / 'cut', count)
        print(f'# ways out: {dict(ways)}', flush=True)
    function.__doc__ = f'{count} power cuts are brought to their ends.'
    return function


def power_cut_alive(variant: Variant, seed: int) -> Callable[[Scene], None]:
    """The destination's host loses power."""
    def function(scene: Scene) -> None:
        destination_lost(scene, variant, seed)
    function.__doc__ = (destination_lost.__doc__ or '').split('\n', 1)[0]
    return function


def expect_found(find: Callable[[], object], *shown: str) -> None:
    """A lie is found, and the failure says so."""
    try:
        find()
    except TestFailure as error:
        text = str(error)
        require(all(word in text for word in shown), f'otherwise: {text}')
        print(f'# {text.splitlines()[0]}', flush=True)
    else:
        raise TestFailure('no cut has shown it')


def lie(skipped: str, seed: int) -> Callable[[Scene], None]:
    """The destination does not sync what it must."""
    def function(scene: Scene) -> None:
        moved = migrate(scene, CUT_VARIANTS['raw'], seed, skipped)
        expect_found(lambda: cut_everywhere(
            moved, seed, scene.folder / 'cut', LIE_CUTS))
    function.__doc__ = f'Power cuts show that "{skipped}" was not synced.'
    return function


def lie_to_the_end(skipped: str, seed: int) -> Callable[[Scene], None]:
    """The same, seen in images that were finished."""
    def function(scene: Scene) -> None:
        moved = migrate(scene, CUT_VARIANTS['raw'], seed, skipped)
        expect_found(lambda: end_cuts(
            moved, seed, scene.folder / 'cut', LIE_ENDS, lost=True),
            'LOST or STALE', 'wsm-finish')
    function.__doc__ = f'Finished images show that "{skipped}" was not synced.'
    return function


def load_power_cuts(seed: int = 0, prefix: str = '',
                    count: Optional[int] = None, draws: int = 1) -> None:
    """Register those that are looked at."""
    for name, variant in CUT_VARIANTS.items():
        add(f'{prefix}power-cut.{name}',
            power_cut(variant, seed, count, draws), variant.config)
    for what, skipped in LIES.items():
        add(f'{prefix}power-cut-lie.{what}', lie(skipped, seed),
            CUT_VARIANTS['raw'].config)


def load_endings(seed: int = 0, prefix: str = '', count: int = ENDS,
                 names: Collection[str] = tuple(CUT_VARIANTS)) -> None:
    """Register those that are brought to an end."""
    for name in names:
        variant = CUT_VARIANTS[name]
        add(f'{prefix}power-cut-end.{name}',
            power_cut_end(variant, seed, count), variant.config)
        add(f'{prefix}power-cut-alive.{name}',
            power_cut_alive(variant, seed), variant.config)
    add(f'{prefix}power-cut-end-lie', lie_to_the_end(LIES['image'], seed),
        CUT_VARIANTS['raw'].config)


def load(seed: int = 0, prefix: str = '',
         names: Collection[str] = ()) -> None:
    """Register all cases, or those of these names."""
    for name, moment, died, variant in combinations():
        if not names or name in names:
            add(prefix + name, case(moment, died, variant, seed + zlib.crc32(
                name.encode()) % 1000000), variant.config)
