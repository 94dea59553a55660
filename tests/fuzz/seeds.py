# SPDX-License-Identifier: GPL-2.0-or-later
"""Seeds and regression inputs of fuzz-wsm-protocol.

An input is one byte for the parser (0 message header, 1 HELLO, 2 START,
3 list of runs, 4 BASIS, 5 POINT, 6 WELCOME, 7 packet of memory,
8 what a node of a ring says, 9 SETS, 10 DIGESTS, 11 file of kept memory,
12 map of missing blocks) and what
that parser takes.
"""
import struct
from collections.abc import Iterator
from pathlib import Path

(MSG, HELLO, START, RUNS, BASIS, POINT, WELCOME, PACKET, RING, SETS, DIGESTS,
 KEPT, MAP) = range(13)
MAGIC = 0x57534D31
SESSION = bytes(range(16))

# Bits of the options byte of MSG
WANT_ERROR, HAVE_LIMITS, FROM_SOURCE, BULK_CHANNEL, ALL_DISKS = (
    1 << n for n in range(5))


def header(kind: int, disk: int = 0, epoch: int = 0, length: int = 0,
           offset: int = 0, size: int = 0) -> bytes:
    return struct.pack(">IHHIIQQ", MAGIC, kind, disk, epoch, length, offset,
                       size)


def message_seeds() -> Iterator[bytes]:
    headers = [
        header(1, length=24), header(2, length=4), header(2), header(3, length=10),
        header(4, 1, 1, 8192, 0x30000, 8192),
        header(4, 1, 0, 100, 0x30000, 8192), header(4, 1, 0, 0, 0x30000, 8192),
        header(5, 0, 0, 0, 0x1000, 1 << 26), header(6, 1, 1, 0, 10 << 20, 512),
        header(7, 3, 0, 5, (1 << 63) - (1 << 20) - 4096, 4096),
        header(8, offset=3), header(9, 0, 1, 0, 3, 1 << 20),
        header(10, epoch=1), header(11, epoch=1), header(12),
        header(13, 2, 1, 0, 0, 512), header(14, 0, 1, 0, 4096, 4096),
        header(15, 1, length=17, offset=3),
        header(16, 3, length=4, size=(1 << 63) - (1 << 20)),
        header(17, 1, size=1 << 20), header(18, size=8192, length=64),
        header(18, 1, size=8192), header(19, 3, 1, 6, 1 << 20, 1 << 30),
        header(20, length=9), header(21, length=32),
        header(22, 1023, offset=1 << 40, size=1 << 20),
        header(23, 0, 1, size=4096), header(24, 2, 1, 8192, 0x7000, 8192),
        header(25, 2, offset=1 << 20, size=3), header(26), header(26, length=47),
        header(27, length=79, offset=1 << 22, size=4096),
        header(28, 1, offset=2), header(99),
        header(4, 0, 0, 8192, (1 << 64) - 4096, 8192),
    ]
    base = WANT_ERROR | HAVE_LIMITS | ALL_DISKS
    for bytes_ in headers:
        for options in (WANT_ERROR, base, base | FROM_SOURCE,
                        base | BULK_CHANNEL,
                        base | FROM_SOURCE | BULK_CHANNEL):
            yield bytes([MSG, options]) + bytes_


def hello_seeds() -> Iterator[bytes]:
    for numbers in ((4, 0, 3, 0), (4, 16, 17, 1 << 31), (3, 0, 3, 0),
                    (5, 0, 3, 1), (4, 3, 3, 0)):
        yield bytes([HELLO]) + SESSION + struct.pack(">HBBI", *numbers)


def start_bytes(disks: list[tuple[str, str, int]], version: int = 4,
                oldest: int = 4, features: int = 0, required: int = 0,
                points: int = 0, marks: int = 0) -> bytes:
    out = struct.pack(">HHIII16sHH", version, oldest, features, required, 4096,
                      SESSION, 3, len(disks))
    for index, (path, name, size) in enumerate(disks):
        address = f"0000:00:0{index}.0"
        out += struct.pack(">QHHBBHHBB", size, len(path), len(name), index % 4,
                           points, len(address), len(name), marks, 0)
        out += (path + name + address + name).encode()
        out += b"\x04mark" * marks
        for number in range(points):
            out += struct.pack(">16sQ", bytes([number]) * 16, number << 12)
    return out


def start_seeds() -> Iterator[bytes]:
    disks = [(f"/machine/peripheral/vd{n}/virtio-backend", f"vd{n}",
              (n + 1) << 30) for n in range(3)]
    for count in range(4):
        yield bytes([START]) + start_bytes(disks[:count])
    for wanted in disks + disks[:1], disks[::-1]:
        yield bytes([START]) + start_bytes(wanted)
    for points in 1, 2, 64, 65:
        yield bytes([START]) + start_bytes(disks, points=points)
    for marks in 1, 16, 17:
        yield bytes([START]) + start_bytes(disks, marks=marks)
    for version, oldest in (3, 3), (5, 4), (5, 5), (4, 5):
        yield bytes([START]) + start_bytes(disks, version, oldest)
    for features, required in (1, 0), (1 << 31, 1 << 31), (1, 2):
        yield bytes([START]) + start_bytes(disks, features=features,
                                           required=required)
    yield bytes([START]) + start_bytes(disks)[:-1]


def packet_seeds() -> Iterator[bytes]:
    refs = [struct.pack(">BBHQ16s", 1, disk, 0, block, SESSION)
            for disk, block in ((0, 0), (1, 2559), (3, 1 << 40))]
    for packing, count, content, pages in ((1, 2, 9, 3), (0, 3, 4096, 4),
                                           (0, 0, 8192, 2), (1, 3, 0, 3)):
        yield (bytes([PACKET, pages - 1]) + struct.pack(">H", content)
               + struct.pack(">BBHHHII", 1, packing, 7, count, 0, content, 0)
               + b"".join(refs[:count]))


def ring_seeds() -> Iterator[bytes]:
    for answer in (b"MN\r\n", b"NS\r\nSERVER_ERROR out of memory\r\nMN\r\n",
                   b"VA 4096 O12\r\n" + bytes(4096) + b"\r\nMN\r\n",
                   b"VA 3 f0 O127\r\nabc\r\nVA 0 O1\r\n\r\nMN\r\n"):
        for piece in 0, 6, 255:
            yield bytes([RING, piece]) + answer


def sets_seeds() -> Iterator[bytes]:
    one = bytes(range(32)) + struct.pack(">QB", 3, 6) + b"public"
    for payload in (b"", one, one * 16, one * 17, one[:-1],
                    bytes(32) + struct.pack(">QB", 1 << 22, 64) + b"a" * 64,
                    bytes(32) + struct.pack(">QB", 0, 0)):
        yield bytes([SETS]) + payload


def leb128(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def runs_seeds() -> Iterator[bytes]:
    lists: tuple[tuple[int, list[int]], ...] = (
        (0, []), (1, [0, 1]), (1 << 18, [2, 3, 127, 128, 16384, 16384]),
        ((1 << 64) - 1, [(1 << 64) - 2, 1]), (100, [99, 2]), (100, [5, 0]),
        (100, [(1 << 64) - 1, 2]), (100, [1 << 64, 1]),
    )
    for blocks, numbers in lists:
        yield (bytes([RUNS]) + struct.pack(">Q", blocks) +
               b"".join(map(leb128, numbers)))


def basis_seeds() -> Iterator[bytes]:
    for kind in range(4):
        for point in bytes(16), SESSION:
            yield bytes([BASIS, kind]) + point + b"because"
    yield bytes([BASIS, 1]) + bytes(16) + b"y" * 1025


def point_seeds() -> Iterator[bytes]:
    for count, index, which in ((0, 0, 0), (1, 0, 0), (3, 2, 1), (3, 3, 0),
                                (64, 63, 2)):
        yield bytes([POINT, count, index, which]) + leb128(5) + leb128(300)


def welcome_seeds() -> Iterator[bytes]:
    for numbers in (0, 0, 0), (3, 1, 1), (3, 1, 2), (3, 0, 4):
        yield bytes([WELCOME]) + struct.pack(">3I", *numbers)


def digests_seeds() -> Iterator[bytes]:
    for pages, length, count in (1, 6, 1), (2, 6, 2), (2, 0, 2), (1, 14, 1):
        yield (bytes([DIGESTS, pages]) + bytes(64) + bytes([length]) + b"pc.ram"
               + bytes(range(8)) * count)


def kept_seeds() -> Iterator[bytes]:
    for count, size in (1, 12288), (1, 12287), (2, 12288), (1025, 0):
        yield (bytes([KEPT]) + struct.pack(">Q", size) + b"WSM-KEPT"
               + struct.pack(">II", 1, count) + SESSION + bytes(96)
               + struct.pack(">Q256s", 2, b"pc.ram") * min(count, 2))


def map_head(generation: int, runs: bytes, **other: int) -> bytes:
    values = {"version": 1, "flags": 0, "area": 8192, "pages": 4,
              "granularity": 4096, "missing": 16384, "disk": 1} | other
    return struct.pack(
        ">8sIIQ16sHHHHIIQQQIIQ", b"WSMMAP\n\x1a", values["version"], 0,
        generation, b"0123456789abcdef", values["disk"], 2, 3,
        values["flags"], values["granularity"], len(runs), 40960,
        values["area"], values["pages"] * 4096, 0, 0, values["missing"])


def map_record(generation: int, serial: int, runs: bytes) -> bytes:
    return struct.pack(">4sIQQ16sII", b"WSMR", 0, generation, serial,
                       b"0123456789abcdef", len(runs), 0) + runs


def map_seeds() -> Iterator[bytes]:
    runs = bytes([2, 3, 4, 1])
    head, marks = map_head(1, runs), map_record(1, 1, bytes([3, 1]))
    next_area = map_head(2, runs, area=24576)
    maps: list[list[tuple[int, bytes]]] = [
        [], [(1, head)], [(1, head), (2, runs)],
        [(1, head), (2, runs), (3, marks)],
        [(1, head), (2, runs), (3, map_record(1, 2, b"\3\1"))],
        [(1, head), (2, runs), (3, marks),
         (4, map_record(1, 2, b"\2\1"))],
        [(1, head), (2, runs), (0, next_area), (6, runs)],
        [(1, head), (2, runs), (0, next_area), (6, runs), (3, marks),
         (7, map_record(2, 1, b"\2\3\4\1"))],
        [(1, head), (2, runs), (3, marks), (0, map_head(
            2, b"", flags=1, area=0, pages=0, missing=0))],
        [(1, map_head(1, runs, version=2))],
        [(1, map_head(1, runs, granularity=512))],
        [(1, map_head(1, runs, area=1 << 62)), (2, runs)],
        [(1, map_head(1, runs, missing=4096)), (2, runs)],
        [(0, map_head(2, runs)), (2, runs)]]
    for pages in maps:
        for sums in 0, 1, 3:
            yield bytes([MAP, sums]) + struct.pack(">H", 79) + b"".join(
                struct.pack(">BH", page, len(content)) + content
                for page, content in pages)


def regressions(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each line "NAME HEX..." that is not a comment."""
    for line in path.read_text(encoding="ascii").splitlines():
        if line and not line.startswith("#"):
            name, _, digits = line.partition(" ")
            yield name, bytes.fromhex(digits)


def write(folder: Path, inputs: Iterator[tuple[str, bytes]]) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for name, data in inputs:
        (folder / name).write_bytes(data)
        count += 1
    return count


def seeds() -> Iterator[tuple[str, bytes]]:
    for name, makers in (("msg", message_seeds), ("hello", hello_seeds),
                         ("start", start_seeds), ("runs", runs_seeds),
                         ("basis", basis_seeds), ("point", point_seeds),
                         ("welcome", welcome_seeds),
                         ("packet", packet_seeds),
                         ("ring", ring_seeds), ("sets", sets_seeds),
                         ("digests", digests_seeds),
                         ("kept", kept_seeds), ("map", map_seeds)):
        for index, data in enumerate(makers()):
            yield f"{name}-{index:02}", data
