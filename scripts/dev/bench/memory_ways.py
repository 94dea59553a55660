# SPDX-License-Identifier: GPL-2.0-or-later
"""The ways to move memory that are compared.

The guest moves as a whole in each, so its disk goes first; what differs is
how its memory follows.  The ideas of others are modes of our own method, so
that nothing but the idea differs.
"""

from dataclasses import dataclass, field
from typing import Any

from dev.rig.vm import Vm

DEFAULT, XBZRLE, PLAIN = 'default', 'xbzrle', 'multifd'
ZSTD_1, ZSTD_3 = 'zstd-1', 'zstd-3'
VECYCLE, DISK, DISK_IMAGE = 'vecycle', 'disk', 'disk+image'
DISK_KIND, IMAGE_KIND = 'disk', 'image'     # of references


@dataclass(frozen=True)
class Way:
    """How memory is moved."""
    name: str
    title: str
    caps: tuple[str, ...] = ()      # of both sides
    params: dict[str, Any] = field(default_factory=dict)    # likewise
    kinds: tuple[str, ...] = ()     # of what memory refers to
    own: bool = False               # not an idea of others

    @property
    def options(self) -> dict[str, Any]:
        """Of wsm-set-options at the source."""
        return {'memory_references': list(self.kinds)} if self.kinds else {}

    def set_up(self, source: Vm, destination: Vm) -> None:
        for vm in (source, destination):
            if self.caps:
                vm.set_caps(*self.caps)
            if self.params:
                vm.set_params(**self.params)


def zstd(level: int) -> dict[str, Any]:
    return {'multifd_compression': 'zstd', 'multifd_zstd_level': level}


MULTIFD = ('multifd',)
MEMORY_WAYS = {way.name: way for way in (
    Way(DEFAULT, 'default'),
    Way(XBZRLE, 'xbzrle', ('xbzrle',)),
    Way(PLAIN, 'multifd', MULTIFD),
    Way(ZSTD_1, 'multifd, zstd 1', MULTIFD, zstd(1)),
    Way(ZSTD_3, 'multifd, zstd 3', MULTIFD, zstd(3)),
    Way(VECYCLE, 'as VeCycle', MULTIFD, kinds=(IMAGE_KIND,)),
    Way(DISK, 'own disk', MULTIFD, kinds=(DISK_KIND,), own=True),
    Way(DISK_IMAGE, 'disk, older image', MULTIFD,
        kinds=(DISK_KIND, IMAGE_KIND), own=True),
)}
# Nothing but the return of a guest has an older image
BACK_WAYS = (DEFAULT, ZSTD_1, VECYCLE, DISK, DISK_IMAGE)
FIRST_WAYS = tuple(name for name, way in MEMORY_WAYS.items()
                   if IMAGE_KIND not in way.kinds)
