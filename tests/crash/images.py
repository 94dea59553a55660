# SPDX-License-Identifier: GPL-2.0-or-later
"""Images that nobody has open: do they have what the guest has flushed?"""

from pathlib import Path

from dev.rig.basics import require
from dev.rig.image import Image
from tests.crash.flushed import Rounds, Verdict, judge, summary
from tests.functional.lib.mapfile import as_raw


def contents(image: Image, folder: Path) -> bytes:
    """The disk in an image."""
    if image.fmt == 'raw':
        return image.path.read_bytes()
    raw = folder / f'{image.path.name}.contents'
    as_raw(image.path, image.fmt, raw)
    data = raw.read_bytes()
    raw.unlink()
    return data


def expect_flushed(plan: Rounds, heard: int, images: list[Image],
                   folder: Path) -> Verdict:
    """No round that was flushed is missing, and no sector is stale."""
    verdict = judge(plan, heard,
                    [contents(image, folder) for image in images])
    text = summary(verdict)
    require(not text, f'{[image.path.name for image in images]}: {text}')
    return verdict
