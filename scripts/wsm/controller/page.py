# SPDX-License-Identifier: GPL-2.0-or-later
"""One page to look at: hosts with their VMs, what moves, and why.

It is whole without JavaScript.  With it, it follows each round.  All that came
from an agent is text, whatever it looks like.
"""

import time
from html import escape
from typing import Any, Iterator, Mapping, Sequence

from wsm.plan.inventory import human

BAR = 160                       # pixels
SQUARE = 14
COLOURS = ((0.65, "#4a8"), (0.80, "#ca4"), (9e9, "#c54"))
TITLES = {"cpu": "CPU", "rx": "received", "tx": "sent", "disk": "disk",
          "memory": "memory"}
POLICY = ("default-src 'none'; style-src 'self'; script-src 'self'; "
          "img-src 'self'; connect-src 'self'; frame-ancestors 'none'; "
          "base-uri 'none'; form-action 'none'")
STYLE = """
body { font: 15px/1.4 sans-serif; margin: 1em; color: #222; }
h1 { font-size: 1.3em; } h2 { font-size: 1.1em; }
.hosts { display: flex; flex-wrap: wrap; gap: 1em; }
.host { border: 1px solid #999; border-radius: 4px; padding: .5em; }
.host.unknown { border-style: dashed; color: #666; }
.alarm { border-left: 4px solid #c54; padding-left: .5em; }
table { border-collapse: collapse; } td, th { padding: .1em .6em; text-align: left; }
th { border-bottom: 1px solid #999; }
text { font: 11px sans-serif; }
"""
SCRIPT = """
'use strict';
const source = new EventSource('/v1/stream');
source.onmessage = async () => {
    const reply = await fetch('/');
    if (!reply.ok) { return; }
    const page = new DOMParser().parseFromString(await reply.text(),
                                                 'text/html');
    document.querySelector('main').replaceWith(page.querySelector('main'));
};
"""


def colour(part: float) -> str:
    """Return the colour of how full something is."""
    return next(name for most, name in COLOURS if part < most)


def level(title: str, now: float, peak: float, row: int) -> str:
    """Return how full something is: a bar, a line at its peak, the number."""
    y = row * 18
    width = BAR * min(1.0, max(0.0, now))
    mark = BAR * min(1.0, max(0.0, peak))
    return (f'<text x="0" y="{y + 11}">{title}</text>'
            f'<rect x="60" y="{y}" width="{BAR}" height="13" fill="#eee"/>'
            f'<rect x="60" y="{y}" width="{width:.0f}" height="13" '
            f'fill="{colour(now)}"/>'
            f'<rect x="{60 + mark:.0f}" y="{y}" width="2" height="13" '
            'fill="#222"/>'
            f'<text x="{66 + BAR}" y="{y + 11}">{now:.0%}</text>')


def parts(host: Mapping[str, Any]) -> Iterator[tuple[str, float, float]]:
    """Yield (name, how full, how full at its peak) of what a host has."""
    for name, load in host["load"].items():
        unit = host["capacity"][name]
        if unit > 0 and (name == "cpu" or load["peak"]):
            yield name, load["now"] / unit, load["peak"] / unit
    memory = host["host"]["memory"]
    used = 1 - host["host"]["available"] / max(memory, 1)
    yield "memory", used, used


def squares(names: Sequence[str], row: int,
            moving: Mapping[str, Any]) -> str:
    """Return the VMs of a host, each a square with its name."""
    found = []
    for number, name in enumerate(names):
        x = number % 14 * (SQUARE + 3)
        y = row * 18 + 4 + number // 14 * (SQUARE + 3)
        fill = "#57c" if name in moving else "#abc"
        found.append(
            f'<rect x="{x}" y="{y}" width="{SQUARE}" height="{SQUARE}" '
            f'fill="{fill}"><title>{escape(name)}</title></rect>')
    return "".join(found)


def host_box(name: str, host: Mapping[str, Any],
             moving: Mapping[str, Any]) -> str:
    """Return a host."""
    rows = list(parts(host))
    lines = [level(TITLES[each], now, peak, row)
             for row, (each, now, peak) in enumerate(rows)]
    height = len(rows) * 18 + 8 + (len(host["vms"]) + 13) // 14 * (SQUARE + 3)
    known = "host" if host["known"] else "host unknown"
    state = host["host"].get("state", "active")
    return (f'<section class="{known}"><h2>{escape(name)} '
            f'({escape(state if host["known"] else "not heard of")}), '
            f'{len(host["vms"])} VMs</h2>'
            f'<svg width="{110 + BAR}" height="{height}" role="img" '
            f'aria-label="{escape(name)}">{"".join(lines)}'
            f'{squares(host["vms"], len(rows), moving)}</svg>'
            f'<div>{escape(", ".join(host["vms"]))}</div></section>')


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table."""
    if not rows:
        return "<p>none</p>"
    return ("<table><tr>" + "".join(f"<th>{each}</th>" for each in head)
            + "</tr>" + "".join(
                "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row)
                + "</tr>" for row in rows) + "</table>")


def move_row(move: Mapping[str, Any]) -> list[str]:
    """Return a move that is under way."""
    phase = str(move["now"].get("phase", "begins"))
    sent = sum(int(disk.get("sent", 0)) for disk in move["now"].get(
        "disks", [])) + int(move["now"].get("ram", {}).get("transferred", 0))
    return [move["vm"], f"{move['source']} → {move['destination']}", phase,
            f"{human(sent)} of about {human(move.get('expected_bytes', 0))}",
            move["why"]]


def main(state: Mapping[str, Any], decisions: Sequence[Any]) -> str:
    """Return what changes from round to round."""
    moving = {move["vm"]: move for move in state["moves"]}
    told = [f'<p class="alarm">{escape(each["text"])}</p>'
            for each in state["alarms"]]
    if state["problem"]:
        told.append(f'<p class="alarm">{escape(state["problem"])}</p>')
    boxes = "".join(host_box(name, host, moving)
                    for name, host in state["hosts"].items())
    rows = [[clock(each.at), str(each.id), each.mode, each.text]
            for each in decisions]
    return (f"<main><h1>{escape(state['cluster'])}: mode "
            f"{escape(state['mode'])}{', paused' * state['paused']}</h1>"
            f"<p>{clock(state['now'])}, {escape(state['name'])}</p>"
            + "".join(told) + f'<div class="hosts">{boxes}</div>'
            "<h2>Moves</h2>" + table(("VM", "from, to", "phase", "sent",
                                      "why"), [move_row(move) for move
                                               in state["moves"]])
            + "<h2>Decisions</h2>" + table(("time", "plan", "mode", ""), rows)
            + "</main>")


def clock(at: float) -> str:
    """Return a time for people."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def whole(state: Mapping[str, Any], decisions: Sequence[Any]) -> str:
    """Return the page."""
    return ("<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">"
            f"<title>{escape(state['cluster'])}</title>"
            '<link rel="stylesheet" href="/page.css">'
            '<noscript><meta http-equiv="refresh" content="10"></noscript>'
            '<script src="/page.js" defer></script></head><body>'
            + main(state, decisions) + "</body></html>")
