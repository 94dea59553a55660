# SPDX-License-Identifier: GPL-2.0-or-later
"""The ways to move memory that are compared.

The guest moves as a whole in each, so its disk goes first; what differs is
how its memory follows.  The ideas of others are modes of our own method, so
that nothing but the idea differs.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from dev.rig.vm import Vm

DEFAULT, XBZRLE, PLAIN = 'default', 'xbzrle', 'multifd'
ZSTD_1, ZSTD_3 = 'zstd-1', 'zstd-3'
TMDM, SHRINKER, VECYCLE = 'tmdm', 'shrinker', 'vecycle'
TEMPLATE, DISK, BOTH, ALL = ('template', 'disk', 'disk+template',
                             'disk+template+image')
# What memory refers to
DISK_KIND, IMAGE_KIND, TEMPLATE_KIND = 'disk', 'image', 'template'
SCOPE = 'bench'


@dataclass(frozen=True)
class Way:
    """How memory is moved."""
    name: str
    title: str
    caps: tuple[str, ...] = ()      # of both sides
    params: dict[str, Any] = field(default_factory=dict)    # likewise
    kinds: tuple[str, ...] = ()     # of what memory refers to
    packed: bool = True             # what is not referred to
    threshold: int = 0              # guests that have a template; 0: none
    own: bool = False               # not an idea of others

    @property
    def options(self) -> dict[str, Any]:
        """Of wsm-set-options at the source."""
        if not self.kinds:
            return {}
        options: dict[str, Any] = {'memory_references': list(self.kinds)}
        return options if self.packed else {**options, 'x_memory_pack': False}

    def set_up(self, source: Vm, destination: Vm,
               pages: Optional[Path]) -> None:
        """@pages: of a set of templates, if there are any."""
        for vm in (source, destination):
            if self.caps:
                vm.set_caps(*self.caps)
            if self.params:
                vm.set_params(**self.params)
        if pages:
            for vm, file in ((source, pages.with_suffix('.idx')),
                             (destination, pages)):
                vm.qmp.cmd('wsm-set-templates', sets=[
                    {'file': str(file), 'scope': SCOPE}])


def zstd(level: int) -> dict[str, Any]:
    return {'multifd_compression': 'zstd', 'multifd_zstd_level': level}


def refer(name: str, title: str, *kinds: str, packed: bool = True,
          threshold: int = 2, own: bool = False) -> Way:
    return Way(name, title, MULTIFD, kinds=kinds, packed=packed,
               threshold=threshold if TEMPLATE_KIND in kinds else 0, own=own)


MULTIFD = ('multifd',)
MEMORY_WAYS = {way.name: way for way in (
    Way(DEFAULT, 'default'),
    Way(XBZRLE, 'xbzrle', ('xbzrle',)),
    Way(PLAIN, 'multifd', MULTIFD),
    Way(ZSTD_1, 'multifd, zstd 1', MULTIFD, zstd(1)),
    Way(ZSTD_3, 'multifd, zstd 3', MULTIFD, zstd(3)),
    refer(TMDM, 'as TMDM', TEMPLATE_KIND, packed=False),
    refer(SHRINKER, 'as Shrinker', TEMPLATE_KIND, threshold=1),
    refer(VECYCLE, 'as VeCycle', IMAGE_KIND),
    refer(TEMPLATE, 'templates', TEMPLATE_KIND, own=True),
    refer(DISK, 'own disk', DISK_KIND, own=True),
    refer(BOTH, 'disk, templates', DISK_KIND, TEMPLATE_KIND, own=True),
    refer(ALL, 'disk, templates, image', DISK_KIND, TEMPLATE_KIND,
          IMAGE_KIND, own=True),
)}
# Nothing but the return of a guest has an older image
BACK_WAYS = (DEFAULT, ZSTD_1, VECYCLE, BOTH, ALL)
FIRST_WAYS = tuple(name for name, way in MEMORY_WAYS.items()
                   if IMAGE_KIND not in way.kinds)
