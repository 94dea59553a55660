# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's command line: options, and the key=value lists or JSON in them."""

import json
from dataclasses import dataclass
from typing import Any, Iterable, Optional, Sequence

# QEMU 10.0's options without an argument
BARE = frozenset("""
    S daemonize enable-kvm enable-sync-profile full-screen h help jitdump
    mem-prealloc no-fd-bootchk no-reboot no-shutdown no-user-config nodefaults
    nographic old-param only-migratable perfmap preconfig s semihosting
    snapshot usb version win2k-hack xen-attach xen-domid-restrict
""".split())
# Those whose argument is a list key=value,key=value in which a comma within a
# value is doubled, with the key that its first part may lack.  The argument
# of all others is taken as it is.
LISTS = {
    "M": "type", "audiodev": "driver", "blockdev": "driver",
    "chardev": "backend", "cpu": "model", "device": "driver",
    "display": "type", "drive": "", "fsdev": "fsdriver", "fw_cfg": "name",
    "m": "size", "machine": "type", "mon": "chardev", "name": "guest",
    "net": "type", "netdev": "type", "nic": "type", "object": "qom-type",
    "smbios": "", "smp": "cpus", "spice": "", "tpmdev": "type",
    "virtfs": "fsdriver", "vnc": "vnc",
}


class BadLine(Exception):
    """A command line that is none."""


@dataclass(frozen=True)
class Option:
    """An option as it was written; the name is "" for a bare image file."""

    name: str
    words: tuple[str, ...]

    @property
    def value(self) -> str:
        """Its argument; "" if it has none."""
        return self.words[-1] if self.name not in BARE else ""

    def values(self) -> "Values":
        """The members of its argument."""
        return Values(self.value, LISTS.get(self.name, ""))

    def with_value(self, value: str) -> "Option":
        """Return it with another argument."""
        return Option(self.name, (*self.words[:-1], value))


def split(argv: Sequence[str]) -> list[Option]:
    """Return the options in @argv, without the program; raise BadLine."""
    options, words = [], list(argv)
    while words:
        word = words.pop(0)
        name = word[2:] if word.startswith("--") else word[1:]
        if not word.startswith("-") or word == "-":
            options.append(Option("", (word,)))
        elif name in BARE:
            options.append(Option(name, (word,)))
        elif not words:
            raise BadLine(f"{word} lacks its argument")
        else:
            options.append(Option(name, (word, words.pop(0))))
    return options


def join(options: Iterable[Option]) -> list[str]:
    """Return the words of @options."""
    return [word for option in options for word in option.words]


class Values:
    """The members of an argument, to be read and changed.

    Of a list the order and doubled keys stay.  Members of JSON are named by
    path: "file.filename", as QEMU names them in lists.
    """

    def __init__(self, text: str, implied: str = "") -> None:
        self.json: Any = None
        # The value is None of a key without "="
        self.pairs: list[tuple[str, Optional[str]]] = []
        if text.startswith("{"):
            try:
                self.json = json.loads(text)
            except ValueError as error:
                raise BadLine(f"no JSON: {text[:60]}") from error
            self.pairs = list(flatten(self.json))
            return
        self.implied = ""
        for number, part in enumerate(split_commas(text)):
            name, equals, value = part.partition("=")
            if not equals and not number and implied:
                self.implied = implied
                self.pairs.append((implied, name))
            else:
                self.pairs.append((name, value if equals else None))

    def get(self, *names: str) -> Optional[str]:
        """Return the value of the first of @names that is there.

        Of a key that comes twice the last counts, as for QEMU.
        """
        for name in names:
            for key, value in reversed(self.pairs):
                if key == name:
                    return value or ""
        return None

    def put(self, name: str, value: str) -> None:
        """Change a member, or add it at the end."""
        if self.json is not None:
            *path, last = name.split(".")
            place = self.json
            for step in path:
                place = place.setdefault(step, {})
            place[last] = value
            self.pairs = list(flatten(self.json))
            return
        if self.get(name) is None:
            self.pairs.append((name, value))
        self.pairs = [(key, value if key == name else old)
                      for key, old in self.pairs]

    def drop(self, *names: str) -> None:
        """Take members away."""
        if self.json is not None:
            for name in names:
                self.json.pop(name, None)
            self.pairs = list(flatten(self.json))
            return
        self.pairs = [(key, value) for key, value in self.pairs
                      if key not in names]

    def text(self) -> str:
        """Return the argument."""
        if self.json is not None:
            return json.dumps(self.json)
        return ",".join(self._part(number, key, value)
                        for number, (key, value) in enumerate(self.pairs))

    def _part(self, number: int, key: str, value: Optional[str]) -> str:
        if value is None:
            text = key
        elif not number and self.implied and key == self.implied:
            text = value
        else:
            text = f"{key}={value}"
        return text.replace(",", ",,")


def flatten(value: Any,
            path: str = "") -> Iterable[tuple[str, Optional[str]]]:
    """Yield (path, text) of each value in JSON."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from flatten(each, f"{path}.{name}".lstrip("."))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from flatten(each, f"{path}.{number}")
    elif isinstance(value, bool):
        yield path, "on" if value else "off"
    else:
        yield path, str(value)


def split_commas(text: str) -> list[str]:
    """Return the parts of a list; a doubled comma is one in a part."""
    parts = [""]
    position = 0
    while position < len(text):
        if text.startswith(",,", position):
            parts[-1] += ","
            position += 2
        elif text[position] == ",":
            parts.append("")
            position += 1
        else:
            parts[-1] += text[position]
            position += 1
    return parts
