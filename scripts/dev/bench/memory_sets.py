# SPDX-License-Identifier: GPL-2.0-or-later
"""Sets of templates for a guest: what the other siblings have.

The guest itself is left out, as it has yet to come when a set is made; so is
the one that it was made from.  Pages are taken from dumps of the siblings'
saved states, and are chosen and stored as the tool wsm-templates does.
"""

from array import array
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path

from dev.bench.debian_guest import DebianScene
from dev.bench.memory_guests import SIBLINGS, guest_config, roles
from dev.bench.settings import Settings
from dev.demo.network import make_network
from dev.rig.image import MIB
from wsm.templates import builder, choose, golden
from wsm.templates.memory_files import Place
from wsm.templates.sets import PREFIX, SUFFIXES, PAGES

ONE_TENANT = 1


def dump_of(guest: str, memory: int) -> Path:
    """All of its memory, as it is in the saved state; @memory: MiB."""
    config = guest_config(guest, memory)
    path = config.state.with_suffix('.ram')
    if path.exists():
        return path
    with make_network(None) as network:
        scene = DebianScene(config, network)
        try:
            vm = scene.source(paused=True)
            partial = path.with_suffix('.new-ram')
            vm.qmp.cmd('pmemsave', val=0, size=memory * MIB,
                       filename=str(partial))
            partial.rename(path)
        finally:
            scene.close()
    return path


@cache
def pages_of(path: Path) -> list[tuple[bytes, Place]]:
    """Hash and place of all pages but those of zeroes."""
    return list(golden.blocks_of(path))


def prefixes_of(path: Path) -> 'array[int]':
    """Each once, ascending."""
    return array('Q', sorted({int.from_bytes(digest[:PREFIX], 'big')
                              for digest, _ in pages_of(path)}))


def others(guest: str, settings: Settings) -> Iterator[str]:
    base = roles(settings.app_memory)[guest].base
    return (name for name in SIBLINGS[:settings.memory_guests]
            if name not in (guest, base))


def set_of(guest: str, threshold: int, settings: Settings) -> Path:
    """The file with the pages that so many of the others have."""
    memory = settings.app_memory
    dumps = [dump_of(name, memory) for name in others(guest, settings)]
    folder = (guest_config(guest, memory).home / 'sets'
              / f'{guest}-{memory}-{threshold}-of-{len(dumps)}')
    if not folder.exists():
        guests = [choose.Guest(path.name, '', prefixes_of(path))
                  for path in dumps]
        wanted = {number.to_bytes(PREFIX, 'big') for number
                  in choose.choose(guests, threshold, ONE_TENANT)}
        found = builder.gather(chain.from_iterable(map(pages_of, dumps)),
                               wanted)
        partial = folder.with_suffix('.new')
        builder.build(partial, found)
        partial.rename(folder)
    return next(folder.glob(f'*{SUFFIXES[PAGES]}'))
