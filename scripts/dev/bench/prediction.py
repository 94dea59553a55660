# SPDX-License-Identifier: GPL-2.0-or-later
"""What wsmctl says of a move before and while it runs, and what it took.

Guests of different size and load are moved by one command, there and back,
over links of different speed.  Before each move the dry run is asked; while it
runs, its line of progress is read as a person would see it.
"""

import contextlib
import functools
import os
import pty
import re
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator

from dev.bench.moving import attempt
from dev.bench.sample import Sample, Samples
from dev.bench.settings import Settings
from dev.rig.basics import require
from dev.rig.cluster import VM, Cluster
from dev.rig.image import MIB
from dev.rig.scene import Scene
from dev.rig.vm import DiskConfig, MachineConfig

WAY = 'wsmctl'
RUN_UP = 12.0                   # s of load before the first question
FORGET = 40.0                   # s after which old writes do not count
TOTAL = re.compile(r'of about (\d+(?:\.\d+)?) (s|min|h)\b')
UNITS = {'s': 1, 'min': 60, 'h': 3600}


@dataclass(frozen=True)
class Leg:
    """One move of a journey."""
    written: int = 0            # MiB that are written anew before it
    rate: int = 0               # MiB/s that it is given; 0: no limit
    spoiled: bool = False       # the old copy there was changed by a stranger


@dataclass(frozen=True)
class Journey:
    """A guest, and its moves: there, back, there..."""
    name: str
    mbit: int                   # of the link
    data: int                   # MiB on each disk, which is twice as large
    legs: tuple[Leg, ...] = (Leg(), Leg())
    noise: int = 0              # MiB of memory that are not zero
    pages: int = 0              # of it that are written per second
    writes: int = 0             # of 4 KiB per second
    fmt: str = 'raw'
    disks: int = 1
    said: bool = True           # agent.toml has the link's speed


# The first one has no past
JOURNEYS = (
    Journey('not told', 60, 32, (Leg(), Leg(8), Leg(8)), said=False),
    Journey('content', 80, 64, (Leg(), Leg(4, spoiled=True),
                                Leg(4, spoiled=True)), writes=20),
    Journey('idle', 100, 48, (Leg(), Leg(4), Leg(16))),
    Journey('memory', 120, 48, (Leg(), Leg()), noise=64),
    Journey('slow link', 60, 24, (Leg(), Leg(8)), noise=16, pages=100),
    Journey('writes', 80, 64, (Leg(), Leg(8), Leg()), writes=100, noise=16),
    Journey('many writes', 100, 96, (Leg(), Leg()), writes=500, noise=16),
    Journey('busy memory', 120, 48, (Leg(), Leg(8)), noise=48, pages=400),
    Journey('more data', 160, 160, (Leg(), Leg(32)), noise=32, pages=200,
            writes=50),
    Journey('limits', 160, 48, (Leg(rate=5), Leg(16, rate=8), Leg(rate=12)),
            noise=16),
    Journey('qcow2', 80, 48, (Leg(), Leg(16)), fmt='qcow2', writes=50),
    Journey('two disks', 100, 32, (Leg(), Leg(8)), disks=2, writes=100),
)
QUICK = (Journey('quick', 320, 8, (Leg(), Leg(2))),)


def shown(cluster: Cluster, *words: str) -> Iterator[tuple[float, str]]:
    """Yield (seconds, what a terminal shows) of a wsmctl until it ends."""
    ours, theirs = pty.openpty()
    try:
        begun = time.monotonic()
        process = cluster.popen(*words, stderr=theirs)
        os.close(theirs)
        text = b''
        with contextlib.suppress(OSError):      # that is a terminal's end
            while data := os.read(ours, 4096):
                text += data
                *lines, text = re.split(rb'[\r\n]+', text)
                for line in lines:
                    yield time.monotonic() - begun, line.decode()
        out = process.communicate()[0]
        yield time.monotonic() - begun, out.strip().rpartition('\n')[2]
        require(process.returncode == 0, f'wsmctl {words}: {out}'
                f'{cluster.logs()}')
    finally:
        os.close(ours)


def totals(lines: list[tuple[float, str]]) -> list[tuple[float, float]]:
    """(seconds, what the move takes in all) of lines of progress."""
    found = []
    for when, line in lines:
        total = TOTAL.search(line)
        if total:
            found.append((when, float(total[1]) * UNITS[total[2]]))
    return found


def spoil(cluster: Cluster, host: str) -> None:
    """Change an old copy, as one does who boots it by mistake."""
    made = cluster.folder(host) / 'images'
    begun = cluster.scene.folder.glob('source-*') if host == 'alpha' else ()
    for path in (*made.glob('*/*'), *begun):
        if path.suffix in ('.raw', '.qcow2'):
            with open(path, 'r+b') as image:
                image.seek(MIB)
                image.write(os.urandom(4096))


def guesses(lines: list[tuple[float, str]], seconds: float
            ) -> dict[str, float]:
    """What the line of progress said first, and at half of the time."""
    seen = totals(lines)
    if not seen:
        return {}
    half = [total for when, total in seen
            if when <= seen[0][0] + seconds / 2]
    return {'first seen': seen[0][0], 'first guess': seen[0][1],
            'half guess': (half or [seen[0][1]])[-1]}


def one_leg(cluster: Cluster, journey: Journey, leg: Leg) -> Sample:
    """Ask what a move would be, and move."""
    sample = Sample(WAY, journey.name)
    sample.load_average = os.getloadavg()[0]
    rate = ('--rate', f'{leg.rate}M') if leg.rate else ()
    plan: dict[str, Any] = cluster.json('migrate', VM, '--dry-run', *rate)
    before = [host.sent_bytes() for host in cluster.hosts.values()]
    lines = list(shown(cluster, 'migrate', VM, '--wait', *rate))
    sample.link_bytes = max(host.sent_bytes() - sent for host, sent
                            in zip(cluster.hosts.values(), before))
    move = cluster.moved()
    require(move['result'] == 'moved', f'{move}')
    said = plan['estimate']
    sample.numbers = {
        'seconds': move['seconds'], 'expected seconds': said['seconds'],
        'bytes': move['bytes'], 'expected bytes': said['bytes'],
        'downtime': move['downtime_ms'] / 1000,
        'expected downtime': said['downtime-seconds'],
        'mbit': journey.mbit, 'rate': leg.rate * MIB,
        'took': lines[-1][0], **guesses(lines, move['seconds'])}
    sample.wsm = {'terms': said['terms'], 'phases': move.get('phases', {}),
                  'kinds': sorted({disk['kind'] for disk
                                   in said['disks'].values()})}
    return sample


def load_up(scene: Scene, journey: Journey, seconds: float) -> None:
    """Let the guest work as this journey wants."""
    if journey.writes or journey.noise:
        scene.guest.start(writers=int(journey.writes > 0),
                          rate=journey.writes, full=1, mem=journey.noise,
                          mrate=journey.pages or 1)
    time.sleep(seconds)


def travel(journey: Journey, journal: Path) -> Samples:
    """
    All moves of a journey, and a look at each block at its end.

    @journal: a folder with the moves of those before, as the hosts are the
    same; filled.
    """
    scene = Scene(MachineConfig(tuple(
        DiskConfig(f'vd{number}', journey.fmt, 2 * journey.data * MIB)
        for number in range(journey.disks))))
    try:
        with Cluster(scene, journey.mbit if journey.said else 0) as cluster:
            cluster.link.set_rate(f'{journey.mbit}mbit')
            moves = cluster.home / 'moves'
            shutil.copytree(journal, moves, dirs_exist_ok=True)
            cluster.guest()
            for disk in range(journey.disks):
                scene.guest.region(disk, 0, journey.data * MIB)
                scene.guest.fill(disk, 0, journey.data * MIB)
            scene.guest.command('flush')
            for number, leg in enumerate(journey.legs):
                scene.guest.stop()
                if leg.written:
                    scene.guest.fill(0, 0, leg.written * MIB)
                if leg.spoiled:
                    spoil(cluster, ('beta', 'alpha')[number % 2])
                load_up(scene, journey, FORGET if leg.written or not number
                        else RUN_UP)
                yield f'{journey.name} {number + 1}', one_leg(
                    cluster, journey, leg)
            shutil.copytree(moves, journal, dirs_exist_ok=True)
            scene.guest.stop()
            scene.guest.verify()
    finally:
        scene.close()


def section_prediction(settings: Settings) -> Samples:
    """Said and done, over all journeys."""
    with tempfile.TemporaryDirectory() as folder:
        for journey in JOURNEYS if settings.verify_all else QUICK:
            yield from attempt(WAY, functools.partial(travel, journey,
                                                      Path(folder)))


PREDICTION_SECTIONS = {'prediction': section_prediction}
