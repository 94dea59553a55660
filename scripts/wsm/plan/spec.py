# SPDX-License-Identifier: GPL-2.0-or-later
"""The description of a VM: QEMU's own command line, with placeholders.

What the guest sees is kept word by word.  Only what belongs to a host is a
placeholder: ${disk.ID.path}, ${disk.ID.format}, ${disk.ID.protocol},
${net.ID.ifname}, ${port.NAME}, ${port.NAME.display}, ${file.NAME}, ${run}.
A "$" itself is "$$".
"""

import enum
import functools
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator, Mapping, Optional


from wsm.plan import argv, toml, window
from wsm.plan.plain import BadData, from_plain, to_plain

# A name of a VM is that of folders, units, and sockets whose path is short
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
PORT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,30}")
SHA256 = re.compile(r"[0-9a-f]{64}")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
PLACEHOLDER = re.compile(r"\$(?:(\$)|\{([^}]*)\})?")
VNC_BASE = 5900
# The agent's own
RESERVED = frozenset("""
    S chroot daemonize incoming mon monitor name pidfile qmp qmp-pretty runas
    snapshot uuid
""".split())
ATTRIBUTES = ("path", "format", "protocol")


class Mode(enum.Enum):
    """Who may decide that a VM moves."""

    AUTO = "auto"
    ASK = "ask"
    NEVER = "never"


@dataclass(frozen=True)
class Disk:
    """A writable disk; its image is at POOL/VM/ID.FORMAT or at path_at."""

    format: str
    size: int
    pool: str = "default"
    template: str = ""
    path_at: Mapping[str, str] = field(default_factory=dict)
    format_at: Mapping[str, str] = field(default_factory=dict)

    def format_on(self, host: str) -> str:
        """Return the format of the image at @host."""
        return self.format_at.get(host, self.format)


@dataclass(frozen=True)
class File:
    """A file that QEMU only reads."""

    sha256: str
    size: int
    path_at: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Net:
    """A network card's other end."""

    network: str
    mtu: int = 1500


CLASS_DOWNTIME = {"gold": 300, "silver": 1000, "bronze": 5000}     # ms
# What a class may have of signs: see fleet.SIGNS
CLASS_SIGNS: Mapping[str, Mapping[str, float]] = {
    "gold": {"wait": 0.05, "latency": 0.020, "swap": 0.0},
    "silver": {"wait": 0.10, "latency": 0.050, "swap": 64.0 * 1024},
    "bronze": {"wait": 0.25, "swap": 1024.0 * 1024}}


@dataclass(frozen=True)
class Sla:
    """What a VM was promised."""

    class_: str = "bronze"
    cpu_wait_max: Optional[float] = None
    net_mbit_min: Mapping[str, float] = field(default_factory=dict)
    io_p95_ms_max: Optional[float] = None
    swap_kib_s_max: Optional[float] = None
    downtime_ms_max: Optional[float] = None
    move_window: str = ""       # when it may be moved; see plan/window.py
    move_never: str = ""        # when not

    @property
    def downtime_most(self) -> float:
        """How long the guest may stand still, in seconds."""
        given = self.downtime_ms_max
        return (CLASS_DOWNTIME[self.class_] if given is None else given) / 1000

    @functools.cached_property
    def signs(self) -> Mapping[str, float]:
        """What signs of trouble of this VM are no trouble yet."""
        given = {"wait": (self.cpu_wait_max, 1.0),
                 "latency": (self.io_p95_ms_max, 0.001),
                 "swap": (self.swap_kib_s_max, 1024.0)}
        return {**CLASS_SIGNS[self.class_],
                **{name: value * unit for name, (value, unit) in given.items()
                   if value is not None}}


@dataclass(frozen=True)
class Placement:
    """Where a VM may run."""

    tags: tuple[str, ...] = ()
    pin: tuple[str, ...] = ()           # hosts; none: all
    mode: Mode = Mode.AUTO
    postcopy_ram: bool = False


# Where the destination may have a page of memory; and that it is not asked
MEMORY_KINDS = ("disk", "image", "template")
NO_KIND = "none"


@dataclass(frozen=True)
class Move:
    """How a VM is moved."""

    memory: tuple[str, ...] = ()        # kinds; (): as the host that it leaves
    disk_packing: bool = False


@dataclass(frozen=True)
class Spec:
    """A VM."""

    name: str
    args: tuple[str, ...]
    uuid: str = ""                      # "": the guest has none
    qemu: str = ""                      # which of the host's; "": the only one
    disk: Mapping[str, Disk] = field(default_factory=dict)
    net: Mapping[str, Net] = field(default_factory=dict)
    file: Mapping[str, File] = field(default_factory=dict)
    sla: Sla = Sla()
    placement: Placement = Placement()
    move: Move = Move()


@dataclass(frozen=True)
class Place:
    """What one host puts in for the placeholders."""

    run: str
    disks: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    nets: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


def escape(text: str) -> str:
    """Return words that hold no placeholder as they are in a spec."""
    return text.replace("$", "$$")


def placeholders(text: str) -> Iterator[str]:
    """Yield the names in a word; raise BadData."""
    for found in PLACEHOLDER.finditer(text):
        if found.group(2) is not None:
            yield found.group(2)
        elif not found.group(1):
            raise BadData(f"args: a single '$' in {text[:80]!r}: write '$$', "
                          "or a placeholder such as ${disk.vd0.path}")


def split_name(name: str) -> tuple[str, str, str]:
    """Return (kind, id, attribute) of a placeholder; ids may have dots."""
    kind, _, rest = name.partition(".")
    if kind in ("disk", "net"):
        inner, _, attribute = rest.rpartition(".")
        return kind, inner, attribute
    if kind == "port":
        inner, _, attribute = rest.partition(".")
        return kind, inner, attribute
    return kind, rest, ""


def known(spec: Spec, name: str) -> bool:
    """Return whether @spec has what a placeholder stands for."""
    kind, inner, attribute = split_name(name)
    if kind == "disk":
        return inner in spec.disk and attribute in ATTRIBUTES
    if kind == "net":
        return inner in spec.net and attribute == "ifname"
    if kind == "port":
        return (PORT.fullmatch(inner) is not None
                and attribute in ("", "display"))
    if kind == "file":
        return inner in spec.file
    return name == "run"


def ports(spec: Spec) -> list[str]:
    """Return the names of the ports that a VM needs."""
    return sorted({split_name(name)[1] for word in spec.args
                   for name in placeholders(word)
                   if name.startswith("port.")})


def check_args(spec: Spec) -> Iterator[str]:
    """Yield what is wrong with the command line."""
    used = set()
    for word in spec.args:
        if "\0" in word:
            yield "args: a word has a byte 0"
        for name in placeholders(word):
            used.add(split_name(name)[:2])
            if not known(spec, name):
                yield f"args: ${{{name}}} stands for nothing here"
    try:
        options = argv.split(spec.args)
    except argv.BadLine as error:
        yield f"args: {error}"
        return
    for option in options:
        if option.name in RESERVED:
            yield f"args: -{option.name} is the agent's own: leave it out"
    for kind, members in (("disk", spec.disk), ("net", spec.net),
                          ("file", spec.file)):
        for inner in members:
            if (kind, inner) not in used:
                yield f"{kind}.{inner}: no word of args uses it"


def check_disk(inner: str, disk: Disk) -> Iterator[str]:
    """Yield what is wrong with a disk."""
    if disk.size <= 0:
        yield f"disk.{inner}.size: {disk.size} bytes"
    for name, value in (("format", disk.format), ("pool", disk.pool),
                        ("template", disk.template or "none"),
                        *(("format_at", each)
                          for each in disk.format_at.values())):
        if not ID.fullmatch(value):
            yield f"disk.{inner}.{name}: {value[:80]!r} is no such name"


def check_paths(where: str, paths: Mapping[str, str]) -> Iterator[str]:
    """Yield what is wrong with the paths at single hosts."""
    for host, path in paths.items():
        if not path.startswith("/") or "\0" in path or "\n" in path:
            yield f"{where}.path_at.{host}: {path[:80]!r} is no absolute path"


def check_memory(where: str, kinds: tuple[str, ...]) -> Iterator[str]:
    """Yield what is wrong with kinds of memory."""
    for kind in kinds:
        if kind not in (*MEMORY_KINDS, NO_KIND):
            yield (f"{where}: {kind[:80]!r} is not known: "
                   + ", ".join(MEMORY_KINDS) + f" or {NO_KIND}")
    if NO_KIND in kinds and len(kinds) > 1:
        yield f"{where}: {NO_KIND!r} stands alone"


def check_members(spec: Spec) -> Iterator[str]:
    """Yield what is wrong with all but the command line."""
    if not NAME.fullmatch(spec.name):
        yield (f"name: {spec.name[:80]!r}: letters, digits, '_', '.', '-', "
               "40 at most, the first a letter or digit")
    if spec.uuid and not UUID.fullmatch(spec.uuid):
        yield f"uuid: {spec.uuid[:80]!r} is no UUID in small letters"
    for kind, names in (("disk", spec.disk), ("net", spec.net),
                        ("file", spec.file)):
        for inner in names:
            if not ID.fullmatch(inner):
                yield f"{kind}: {inner[:80]!r} is no name for it"
    for inner, disk in spec.disk.items():
        yield from check_disk(inner, disk)
        yield from check_paths(f"disk.{inner}", disk.path_at)
    for inner, file in spec.file.items():
        yield from check_paths(f"file.{inner}", file.path_at)
        if not SHA256.fullmatch(file.sha256):
            yield f"file.{inner}.sha256: {file.sha256[:80]!r} is none"
    if spec.sla.class_ not in ("gold", "silver", "bronze"):
        yield f"sla.class: {spec.sla.class_[:80]!r}: gold, silver or bronze"
    yield from check_memory("move.memory", spec.move.memory)
    if spec.placement.postcopy_ram and {*spec.move.memory} - {NO_KIND}:
        yield ("move.memory: QEMU cannot do that together with "
               "placement.postcopy_ram: leave out one of them")
    for name in ("move_window", "move_never"):
        yield from (f"sla.{name}: {each}" for each
                    in window.problems(getattr(spec.sla, name)))


def check(spec: Spec) -> Spec:
    """Return @spec; raise BadData with all that is wrong."""
    problems = [*check_members(spec), *check_args(spec)]
    if problems:
        raise BadData("; ".join(problems))
    return spec


def loads(text: str) -> Spec:
    """Return the spec in TOML; raise BadData."""
    return check(toml.loads(Spec, text))


def dumps(spec: Spec) -> str:
    """Return a spec as TOML."""
    return toml.dumps(to_plain(spec))


def digest(spec: Spec) -> str:
    """Return what two equal specs have in common."""
    text = json.dumps(to_plain(spec), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def value_of(name: str, place: Place) -> str:
    """Return what a placeholder stands for; raise BadData."""
    kind, inner, attribute = split_name(name)
    try:
        if kind == "disk":
            path, image_format = place.disks[inner]
            return {"path": path, "format": image_format,
                    "protocol": "host_device" if path.startswith("/dev/")
                    else "file"}[attribute]
        if kind == "net":
            return place.nets[inner]
        if kind == "file":
            return place.files[inner]
        if kind == "port":
            port = place.ports[inner]
            return str(port - VNC_BASE if attribute else port)
    except KeyError as error:
        raise BadData(f"nothing to put in for ${{{name}}}") from error
    if name == "run":
        return place.run
    raise BadData(f"${{{name}}} stands for nothing here")


def fill_word(word: str, value: Callable[[str], str]) -> str:
    """Return a word with its placeholders filled."""
    for _ in placeholders(word):    # complains of a single "$"
        pass
    return PLACEHOLDER.sub(
        lambda found: "$" if found.group(1) else value(found.group(2)), word)


def fill(spec: Spec, place: Place) -> list[str]:
    """Return QEMU's arguments on a host; raise BadData."""
    result = []
    for option in argv.split(spec.args):
        *head, last = option.words
        as_json = last.startswith("{") and option.name in argv.LISTS
        as_list = option.name in argv.LISTS

        def value(name: str, as_json: bool = as_json,
                  as_list: bool = as_list) -> str:
            text = value_of(name, place)
            if as_json:
                return json.dumps(text)[1:-1]
            return text.replace(",", ",,") if as_list else text

        result += [*head, fill_word(last, value)]
    return result


def command_line(spec: Spec, program: str, place: Place,
                 incoming: bool = False) -> list[str]:
    """Return the whole command line with what is the agent's own."""
    result = [program, "-name", f"{spec.name},debug-threads=on"]
    if spec.uuid:
        result += ["-uuid", spec.uuid]
    result += fill(spec, place)
    for monitor in ("agent", "rescue"):
        result += ["-qmp", f"unix:{place.run}/{monitor}.qmp,server=on,wait=off"]
    result += ["-pidfile", f"{place.run}/pid"]
    return result + (["-incoming", "defer"] if incoming else [])


def from_json(data: Any) -> Spec:
    """Return the spec that another program sent; raise BadData."""
    return check(from_plain(Spec, data))
