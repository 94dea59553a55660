# SPDX-License-Identifier: GPL-2.0-or-later
"""Write TOML, and read dataclasses in it."""

import json
import re
from typing import Any, Iterator, Mapping, TypeVar

import tomllib

from wsm.plan.plain import BadData, from_plain

T = TypeVar("T")
BARE = re.compile(r"[A-Za-z0-9_-]+")


def quoted(text: str) -> str:
    """Return a basic string: JSON's, but TOML allows no raw DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def key(name: str) -> str:
    """Return the name of a value or table."""
    return name if BARE.fullmatch(name) else quoted(name)


def value(data: Any) -> str:
    """Return a value that is no table of its own."""
    if isinstance(data, bool):
        return "true" if data else "false"
    if isinstance(data, str):
        return quoted(data)
    if isinstance(data, (int, float)):
        return repr(data)
    if isinstance(data, Mapping):
        inner = ", ".join(f"{key(name)} = {value(each)}"
                          for name, each in data.items())
        return "{ " + inner + " }" if inner else "{}"
    if isinstance(data, (list, tuple)):
        return "[" + ", ".join(value(each) for each in data) + "]"
    raise TypeError(f"TOML has nothing for {data!r}")


def words(data: list[Any]) -> str:
    """Return a list with one line for each option and its argument."""
    lines: list[list[str]] = []
    for word in data:
        if not lines or str(word).startswith("-") or len(lines[-1]) > 1:
            lines.append([])
        lines[-1].append(value(word))
    return "[\n" + "".join(f"    {', '.join(line)},\n" for line in lines) + "]"


def is_table_of_tables(data: Any) -> bool:
    """Return whether each member of a table is a table again."""
    return (isinstance(data, Mapping) and bool(data)
            and all(isinstance(each, Mapping) for each in data.values()))


def lines_of(data: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the lines of a table: its values, then the tables in it."""
    for name, each in data.items():
        if not isinstance(each, Mapping):
            long = isinstance(each, list) and len(each) > 4
            yield f"{key(name)} = {words(each) if long else value(each)}"
        elif prefix:
            yield f"{key(name)} = {value(each)}"
    for name, each in data.items():
        if prefix or not isinstance(each, Mapping):
            continue
        nested = ({f"{key(name)}.{key(inner)}": table
                   for inner, table in each.items()}
                  if is_table_of_tables(each) else {key(name): each})
        for title, table in nested.items():
            yield ""
            yield f"[{title}]"
            yield from lines_of(table, title)


def dumps(data: Mapping[str, Any]) -> str:
    """Return a document."""
    return "\n".join(lines_of(data)).lstrip("\n") + "\n"


def loads(kind: type[T], text: str) -> T:
    """Return the dataclass that a document has; raise BadData."""
    try:
        return from_plain(kind, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise BadData(f"no TOML: {error}") from error
