# SPDX-License-Identifier: GPL-2.0-or-later
"""Whose disk is the guest's, when nobody runs: what wsm-info says of images."""

import wsm.info

from dev.rig.basics import require
from dev.rig.image import Image

# Or both images together, with the map
SOURCE, DESTINATION, BOTH = OWNERS = (
    'source', 'destination', 'both')


def words(images: list[Image], good: bool = True) -> list[str]:
    """The state of each image; if @good, nothing is wrong with its map."""
    found = []
    for image in images:
        info = wsm.info.Image(str(image.path))
        info.read(None)
        require(not good or not info.errors, f'{image.path}: {info.errors}')
        found.append(str(info.facts['state']))
    return found


def owner(source: list[str], destination: list[str]) -> str:
    """By the states of the images of a migration, as the documents say."""
    said = f'source: {source}, destination: {destination}'
    if 'incomplete' in destination:
        require(set(source) <= {'current', 'leaving'},
                f'nobody has the guest: {said}')
        return SOURCE
    require('current' not in source, f'two copies would run: {said}')
    if set(destination) == {'current'}:
        return DESTINATION
    require(set(source) == {'leaving'}
            and set(destination) <= {'arriving', 'current'},
            f'no way out: {said}')
    return BOTH
