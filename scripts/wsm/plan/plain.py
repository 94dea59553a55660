# SPDX-License-Identifier: GPL-2.0-or-later
"""Frozen dataclasses to and from what JSON and TOML can hold.

What comes from outside is checked here once: each value has the type that
its field says, and no name is unknown.  A name that ends in "_" in Python has
no "_" outside; "_" within a name stays.
"""

import dataclasses
import enum
import math
import types
import typing
from typing import Any, Callable, Mapping, TypeVar

T = TypeVar("T")


class BadData(Exception):
    """Data that do not fit; the text names place, value and remedy."""


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


def scalar(kind: Any, value: Any, where: str) -> Any:
    """Return @value if it is of the simple type @kind."""
    if (kind is float and isinstance(value, (int, float))
            and not isinstance(value, bool)):
        if not math.isfinite(value):
            raise BadData(f"{where}: {value} is no finite number")
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool)
                                       and kind is not bool):
        raise BadData(f"{where}: {str(value)[:80]!r} is no {kind.__name__}")
    return value


def from_union(kind: Any, value: Any, where: str) -> Any:
    """Return @value as the one type of Optional[type]; None stays None."""
    if value is None:
        return None
    choice, = (each for each in typing.get_args(kind)
               if each is not types.NoneType)
    return convert(choice, value, where)


def from_list(kind: Any, value: Any, where: str) -> Any:
    """Return @value as tuple[X, ...], tuple[X, Y] or frozenset[X]."""
    if not isinstance(value, (list, tuple)):
        raise BadData(f"{where}: {str(value)[:80]!r} is no list")
    inner = typing.get_args(kind)
    if typing.get_origin(kind) is frozenset:
        return frozenset(convert(inner[0], each, where) for each in value)
    if len(inner) == 2 and inner[1] is Ellipsis:
        return tuple(convert(inner[0], each, f"{where}[{number}]")
                     for number, each in enumerate(value))
    if len(inner) != len(value):
        raise BadData(f"{where}: {len(value)} values, {len(inner)} are needed")
    return tuple(convert(each_kind, each, where)
                 for each_kind, each in zip(inner, value))


def from_mapping(kind: Any, value: Any, where: str) -> Any:
    """Return @value as Mapping[str, X]."""
    if not isinstance(value, Mapping):
        raise BadData(f"{where}: {str(value)[:80]!r} is no table")
    inner = typing.get_args(kind)[1]
    return {scalar(str, key, where): convert(inner, each, f"{where}.{key}")
            for key, each in sorted(value.items())}


def from_enum(kind: Any, value: Any, where: str) -> Any:
    """Return @value as one of an enum's."""
    try:
        return kind(value)
    except ValueError as error:
        raise BadData(f"{where}: {str(value)[:80]!r} is none of "
                      + ", ".join(str(each.value) for each in kind)) from error


def convert(kind: Any, value: Any, where: str) -> Any:
    """Return @value as the type @kind; raise BadData."""
    origin = typing.get_origin(kind)
    how: Callable[[Any, Any, str], Any]
    if origin in (typing.Union, types.UnionType):
        how = from_union
    elif origin in (tuple, frozenset):
        how = from_list
    elif origin is not None:
        how = from_mapping
    elif dataclasses.is_dataclass(kind):
        how = from_plain
    elif isinstance(kind, type) and issubclass(kind, enum.Enum):
        how = from_enum
    else:
        how = scalar
    return how(kind, value, where)


def from_plain(kind: type[T], data: Any, where: str = "") -> T:
    """Return the dataclass @kind that @data describes; raise BadData."""
    if not isinstance(data, Mapping):
        raise BadData(f"{where or 'data'}: {str(data)[:80]!r} is no table")
    hints = typing.get_type_hints(kind)
    fields = {field.name.rstrip("_"): field
              for field in dataclasses.fields(typing.cast(Any, kind))}
    for name in sorted(map(str, data)):
        if name not in fields:
            raise BadData(f"{where}.{name}".lstrip(".") + " is not known; here "
                          "can be: " + ", ".join(sorted(fields)))
    values = {}
    for name, field in fields.items():
        place = f"{where}.{name}".lstrip(".")
        if name in data:
            values[field.name] = convert(hints[field.name], data[name], place)
        elif (field.default is dataclasses.MISSING
              and field.default_factory is dataclasses.MISSING):
            raise BadData(f"{place} is missing")
    return kind(**values)
