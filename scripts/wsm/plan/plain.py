# SPDX-License-Identifier: GPL-2.0-or-later
"""Frozen dataclasses to and from what JSON and TOML can hold.

What comes from outside is checked here once: each value has the type that
its field says, and no name is unknown.  A name that ends in "_" in Python has
no "_" outside; "_" within a name stays.
"""

import dataclasses
import enum
import functools
import math
import types
import typing
from typing import Any, Callable, Mapping, TypeVar

MOST = 1 << 64          # whole numbers are smaller: they are used as floats, too
T = TypeVar("T")
Converter = Callable[[Any], Any]        # raises Wrong


class BadData(Exception):
    """Data that do not fit; the text names place, value and remedy."""


class Wrong(Exception):
    """The same while its place is not known yet."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.place, self.text = "", text

    def under(self, place: str) -> "Wrong":
        """Return it: it is in a member of something."""
        self.place = place + self.place
        return self


def to_plain(value: Any) -> Any:
    """Return @value with dicts and lists; None and empty members left out."""
    if dataclasses.is_dataclass(value):
        result = {}
        for field in dataclasses.fields(value):
            member = getattr(value, field.name)
            if member is None or member == field.default:
                continue
            plain = to_plain(member)
            if plain not in ({}, []):
                result[field.name.rstrip("_")] = plain
        return result
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): to_plain(member)
                for key, member in sorted(value.items())}
    if isinstance(value, (tuple, list, frozenset)):
        members = sorted(value) if isinstance(value, frozenset) else value
        return [to_plain(member) for member in members]
    return value


def to_number(value: Any) -> float:
    """Return a finite number."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise Wrong(f": {str(value)[:80]!r} is no float")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise Wrong(f": {str(value)[:80]} is no finite number")
    return found


def to_int(value: Any) -> int:
    """Return a whole number of 64 bits."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise Wrong(f": {str(value)[:80]!r} is no int")
    if abs(value) >= MOST:
        raise Wrong(f": {str(value)[:80]} is no number of 64 bits")
    return value


def to_scalar(kind: Any) -> Converter:
    """Return what checks a simple type."""
    if kind is float:
        return to_number
    if kind is int:
        return to_int

    def convert(value: Any) -> Any:
        if value.__class__ is kind:
            return value
        if not isinstance(value, kind) or (isinstance(value, bool)
                                           and kind is not bool):
            raise Wrong(f": {str(value)[:80]!r} is no {kind.__name__}")
        return value

    return convert


def to_optional(kind: Any) -> Converter:
    """Return what checks the one type of Optional[type]; None stays None."""
    choice, = (each for each in typing.get_args(kind)
               if each is not types.NoneType)
    inner = converter(choice)
    return lambda value: None if value is None else inner(value)


def each_of(values: Any, inner: typing.Sequence[Converter]) -> list[Any]:
    """Return the members of a list, or raise Wrong with its number."""
    found: list[Any] = []
    try:
        for value, one in zip(values, inner):
            found.append(one(value))
    except Wrong as wrong:
        raise wrong.under(f"[{len(found)}]")
    return found


def to_list(kind: Any) -> Converter:
    """Return what makes tuple[X, ...], tuple[X, Y] or frozenset[X]."""
    args = typing.get_args(kind)
    is_set = typing.get_origin(kind) is frozenset
    many = is_set or len(args) == 2 and args[1] is Ellipsis
    inner = [converter(each) for each in (args[:1] if many else args)]

    def convert(value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            raise Wrong(f": {str(value)[:80]!r} is no list")
        if is_set:
            return frozenset(map(inner[0], value))
        if not many and len(inner) != len(value):
            raise Wrong(f": {len(value)} values, {len(inner)} are needed")
        return tuple(each_of(value, inner * len(value) if many else inner))

    return convert


def to_mapping(kind: Any) -> Converter:
    """Return what makes Mapping[str, X]."""
    inner, name = converter(typing.get_args(kind)[1]), to_scalar(str)

    def convert(value: Any) -> Any:
        if value.__class__ is not dict and not isinstance(value, Mapping):
            raise Wrong(f": {str(value)[:80]!r} is no table")
        found = {}
        for key, each in sorted(value.items()):
            name(key)
            try:
                found[key] = inner(each)
            except Wrong as wrong:
                raise wrong.under(f".{key}")
        return found

    return convert


def to_enum(kind: Any) -> Converter:
    """Return what finds a member of an enum."""
    def convert(value: Any) -> Any:
        try:
            return kind(value)
        except ValueError as error:
            raise Wrong(f": {str(value)[:80]!r} is none of " + ", ".join(
                str(each.value) for each in kind)) from error

    return convert


def to_dataclass(kind: Any) -> Converter:
    """Return what makes a dataclass."""
    hints = typing.get_type_hints(kind)
    members = [(each.name.rstrip("_"), each.name, converter(hints[each.name]),
                each.default is dataclasses.MISSING
                and each.default_factory is dataclasses.MISSING)
               for each in dataclasses.fields(kind)]
    names = {name for name, *_ in members}

    def convert(data: Any) -> Any:
        if data.__class__ is not dict and not isinstance(data, Mapping):
            raise Wrong(f": {str(data)[:80]!r} is no table")
        if not names.issuperset(data):
            name = min(set(map(str, data)) - names)
            raise Wrong(" is not known; here can be: " + ", ".join(
                sorted(names))).under(f".{name}")
        values, name = {}, ""
        try:
            for name, attribute, inner, needed in members:
                if name in data:
                    values[attribute] = inner(data[name])
                elif needed:
                    raise Wrong(" is missing")
        except Wrong as wrong:
            raise wrong.under(f".{name}")
        return kind(**values)

    return convert


@functools.lru_cache(None)
def converter(kind: Any) -> Converter:
    """Return what makes a value of the type @kind of plain data."""
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return to_optional(kind)
    if origin in (tuple, frozenset):
        return to_list(kind)
    if origin is not None:
        return to_mapping(kind)
    if dataclasses.is_dataclass(kind):
        return to_dataclass(kind)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return to_enum(kind)
    return to_scalar(kind)


def from_plain(kind: type[T], data: Any, where: str = "") -> T:
    """Return the dataclass @kind that @data describes; raise BadData."""
    try:
        made: T = converter(typing.cast(Any, kind))(data)
        return made
    except Wrong as wrong:
        place = (where + wrong.place).lstrip(".") or "data"
        raise BadData(place + wrong.text) from wrong
