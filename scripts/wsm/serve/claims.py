# SPDX-License-Identifier: GPL-2.0-or-later
"""What records say of a session that broke off.  Does no I/O."""

import uuid
from dataclasses import dataclass
from typing import Any, Mapping, Optional, Sequence

from wsm.serve.speech import VERSION

MIN_CHANNELS, MAX_CHANNELS = 2, 17
MIN_GRANULARITY, MAX_GRANULARITY = 4096, 1 << 20
MAX_POINTS = 64
FORMATS = ("raw", "qcow2")
# Of a session as a whole: the same in the records of all its images
COMMON = ("disks", "granularity", "channels", "version", "features", "uri",
          "tls")
NOT_LEAVING = {
    "current": "its record says that it is the guest's disk, so there is "
               "nothing to serve",
    "incomplete": "its record says that a migration to it has not ended; what "
                  "is missing is at the other host: serve that one's image",
    "handed-over": "its record says that the destination has everything, so "
                   "there is nothing to serve",
}


class Refused(Exception):
    """The images cannot be served; says why, and what to do."""


@dataclass(frozen=True)
class Claim:
    """An image, and the place in the session that its record claims."""

    image: str
    number: int
    size: int
    format: Optional[str]       # None: an old record, it does not say
    points: Optional[int]       # likewise
    stamp: Optional[Mapping[str, int]] = None   # since the guest has left


@dataclass(frozen=True)
class Session:
    """A migration whose source was killed after the handover."""

    id: str
    claims: tuple[Claim, ...]   # in the order of their numbers
    granularity: int
    channels: int
    version: int
    features: int
    uri: Optional[str]
    tls: bool
    told: bool                  # the records have all that START had


def check_state(image: str, record: Optional[Mapping[str, Any]]) -> None:
    """Refuse an image that is not the one of a source that was killed."""
    if record is None:
        raise Refused(f"{image}: it has no record, so nothing shows that its "
                      "guest has left for another host")
    if record["state"] in NOT_LEAVING:
        raise Refused(f"{image}: {NOT_LEAVING[record['state']]}")
    try:
        uuid.UUID(record["session"])
    except ValueError as error:
        raise Refused(f"{image}: the session '{record['session']}' of its "
                      "record is no UUID") from error
    if record["disk-size"] <= 0 or record["disk-size"] % 512:
        raise Refused(f"{image}: the disk of its record has "
                      f"{record['disk-size']} bytes, which is no size")


def check_handover(image: str, handover: Mapping[str, Any]) -> None:
    """Refuse what no source can have written."""
    checks = (
        (handover["version"] == VERSION,
         f"version {handover['version']} of the protocol, this program "
         f"speaks only {VERSION}"),
        (MIN_CHANNELS <= handover["channels"] <= MAX_CHANNELS,
         f"{handover['channels']} channels"),
        (0 <= handover["disk"] < handover["disks"],
         f"disk {handover['disk']} of {handover['disks']}"),
        (0 <= handover["points"] <= MAX_POINTS,
         f"{handover['points']} sync points"),
        (0 <= handover["features"] < 1 << 32,
         f"features {handover['features']}"),
        (MIN_GRANULARITY <= handover["granularity"] <= MAX_GRANULARITY and
         not handover["granularity"] & (handover["granularity"] - 1),
         f"a granularity of {handover['granularity']} bytes"))
    for good, what in checks:
        if not good:
            raise Refused(f"{image}: its record has {what}")
    if handover["format"] not in FORMATS:
        raise Refused(f"{image}: its format is '{handover['format']}'; only "
                      f"{' and '.join(FORMATS)} can be served")


def check_same(images: Sequence[str], values: Sequence[Any],
               what: str) -> None:
    """Refuse records that contradict each other."""
    for image, value in zip(images[1:], values[1:]):
        if value != values[0]:
            raise Refused(f"{image}: {what} of its record, {value}, is not "
                          f"that of {images[0]}, {values[0]}")


def check_stamp(claim: Claim, size: int, inode: int, mtime: int) -> None:
    """
    Refuse an image that was written to, or put there, since the guest left it.

    After a power cut its time may be older.  The time of the inode tells
    nothing, and the number of a device can be another after a reboot.
    """
    if claim.stamp is None:
        return
    for name, now, good in (
            ("size", size, size == claim.stamp["size"]),
            ("inode", inode, inode == claim.stamp["inode"]),
            ("mtime", mtime, mtime <= claim.stamp["mtime"])):
        if not good:
            raise Refused(
                f"{claim.image}: it was changed or replaced since the guest "
                f"has left it: its {name} was {claim.stamp[name]} and is "
                f"{now}, so it may not be what the destination lacks; if you "
                "know that it is, say so with --changed-ok")


def check_numbers(claims: Sequence[Claim], disks: int) -> None:
    """Refuse unless each disk of the session is there, once."""
    known: dict[int, Claim] = {}
    for claim in claims:
        if claim.number in known:
            raise Refused(f"{claim.image}: it is disk {claim.number + 1} of "
                          f"the session, as {known[claim.number].image} is; "
                          "one of them is a copy")
        known[claim.number] = claim
    missing = [str(i + 1) for i in range(disks) if i not in known]
    if missing:
        raise Refused(f"the session has {disks} disks; name the images of all "
                      "of them. Not there: disk " + ", ".join(missing))


def old_session(image: str, record: Mapping[str, Any], several: bool,
                only_disk: bool) -> Session:
    """Return what an old record tells, which is not much."""
    if several:
        raise Refused(f"{image}: its record, of an older QEMU, does not say "
                      "which disk of the guest it is, so a guest with several "
                      "disks cannot be served")
    if not only_disk:
        raise Refused(f"{image}: its record, of an older QEMU, does not say "
                      "whether the guest has other disks; if it has none, say "
                      "so with --only-disk")
    # A range that fits the largest granularity fits any
    return Session(record["session"],
                   (Claim(image, 0, record["disk-size"], None, None),),
                   MAX_GRANULARITY, MIN_CHANNELS, VERSION, 0, None, False,
                   False)


def session_of(images: Sequence[str],
               records: Sequence[Optional[Mapping[str, Any]]],
               only_disk: bool = False,
               other_uri: bool = False) -> Session:
    """
    Return the session that the images are of; raise Refused.

    With @other_uri the address of the records will not be used.
    """
    for image, record in zip(images, records):
        check_state(image, record)
    good = [record for record in records if record is not None]
    check_same(images, [record["session"] for record in good], "the session")
    for image, record in zip(images, good):
        if "handover" not in record:
            return old_session(image, record, len(images) > 1, only_disk)
        check_handover(image, record["handover"])
    told = [record["handover"] for record in good]
    for name in COMMON:
        if name != "uri" or not other_uri:
            check_same(images, [handover[name] for handover in told],
                       f"'{name}'")
    claims = [Claim(image, record["handover"]["disk"], record["disk-size"],
                    record["handover"]["format"],
                    record["handover"]["points"], record.get("stamp"))
              for image, record in zip(images, good)]
    check_numbers(claims, told[0]["disks"])
    first = told[0]
    return Session(good[0]["session"],
                   tuple(sorted(claims, key=lambda claim: claim.number)),
                   first["granularity"], first["channels"], first["version"],
                   first["features"], first["uri"], first["tls"], True)
