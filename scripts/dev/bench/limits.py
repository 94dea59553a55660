# SPDX-License-Identifier: GPL-2.0-or-later
"""How far a move was from what the link and the guest's writes allow.

The limits of one move: for time, all bytes that went over the link at the
link's speed; for bytes, the allocated data of the disk, and what the guest
wrote to it meanwhile and had to follow (the residue, each block once), with
the bytes that the same guest's memory takes with shared storage; for the
downtime, the memory that was sent in the freeze at the link's speed, and one
round trip.
"""

import statistics
from typing import Optional

from dev.bench.rows import Getter, Value, failed, field_of
from dev.rig.qmp import Json

ROUND_TRIP = 0.0002             # of two namespaces; seconds


def finished(samples: list[Json]) -> list[Json]:
    return [sample for sample in samples if not failed(sample)]


def median_of(samples: list[Json], getter: Getter) -> Value:
    values = [value for value in map(getter, finished(samples))
              if value is not None]
    return statistics.median(values) if values else None


def link_speed(sample: Json) -> Value:
    """Bytes per second; None: without a limit."""
    return sample['numbers'].get('link') or None


def time_over_limit(sample: Json) -> Value:
    speed = link_speed(sample)
    if not speed or not sample['link_bytes']:
        return None
    return float(sample['synchronised'] / (sample['link_bytes'] / speed))


def residue(sample: Json) -> float:
    """Bytes that followed after the guest had moved."""
    return float(sum(disk['pushed'] + disk['pulled']
                     for disk in sample['wsm'].get('disks', [])))


def bytes_over_limit(ram_bytes: float) -> Getter:
    """@ram_bytes: what the link carries with shared storage."""
    def getter(sample: Json) -> Value:
        limit = sample['disk_bytes'] + residue(sample) + ram_bytes
        return float(sample['link_bytes'] / limit)
    return getter


def least_bytes(rows: dict[str, list[Json]], way: str) -> Value:
    """What the disk has, and the least memory that any way sent."""
    disk = median_of(rows.get(way, []), field_of('disk_bytes'))
    ram = [value for samples in rows.values()
           if (value := median_of(samples, field_of('ram_bytes'))) is not None]
    return None if disk is None else disk + min(ram, default=0.0)


def downtime_limit(sample: Json) -> Value:
    speed = link_speed(sample)
    sent = sample['numbers'].get('downtime bytes')
    return sent / speed + ROUND_TRIP if speed and sent is not None else None


def downtime_over_limit(sample: Json) -> Value:
    limit = downtime_limit(sample)
    return float(sample['gap']) / limit if limit else None


def usable(sample: Json) -> bool:
    """Whether the guest kept half of its throughput or more."""
    if not sample['rate_before']:
        return True
    rates = sample['rates']
    return bool(rates) and (statistics.median(rates)
                            >= sample['rate_before'] / 2)


def p99(when: str) -> Getter:
    """Of the client, in milliseconds."""
    def found(sample: Json) -> Optional[float]:
        value: Optional[float] = sample['latency'].get(when, {}).get('p99')
        return value

    return found


def p99_grows(sample: Json) -> Value:
    before, during = p99('before')(sample), p99('during')(sample)
    return during / before if before and during else None


def longest_answer(sample: Json) -> Value:
    """In milliseconds; of a client outside, or by the guest's own clock.

    With some time at the destination in each way: a guest that has just come
    is slow under TCG, and only in ours that belongs to the move.
    """
    seen = sample['latency']
    return max(sample['worst_write'] * 1000,
               *(seen.get(when, {}).get('max', 0.0)
                 for when in ('move', 'after'))) or None
