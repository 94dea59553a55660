# SPDX-License-Identifier: GPL-2.0-or-later
"""One page to look at: hosts with their VMs, what moves, and why.

It is whole without JavaScript, as tables.  With it there is a live map.  All
that came from an agent is text, whatever it looks like.
"""

from html import escape
from pathlib import Path
from typing import Any, Mapping, Sequence

from wsm.cli.moment import clock
from wsm.controller import livemap
from wsm.controller.rounds import Controller
from wsm.plan.inventory import human

WEB = Path(__file__).parent / "web"
ROWS = 500                      # of a table; the rest is counted
POLICY = ("default-src 'none'; style-src 'self'; script-src 'self'; "
          "img-src 'self'; connect-src 'self'; frame-ancestors 'none'; "
          "base-uri 'none'; form-action 'none'")
WORDS = {"kept": "kept", "short": "less than promised, just now",
         "broken": "broken", "unknown": "not known"}
LIVE = """<div id="live" hidden>
<p id="when"></p><div id="alarms" role="status"></div>
<div class="bar"><button type="button" id="plan">Plan…</button>
<button type="button" id="pause">Pause…</button></div>
<p class="legend">Bars: now; line: peak of the last hour; ring: forecast of the CPU.
Squares are VMs, sized by memory: filled: promises are kept; “–”: less than promised just now;
“!”: broken; dashed: nothing known; “→”: it moves. ▲: the host is too hot.</p>
<div id="map"><div id="boxes"></div><svg id="arrows" aria-hidden="true"></svg></div>
<section id="detail" aria-live="polite" hidden></section>
<h2>Moves</h2><ul id="moves"></ul>
<h2>Decisions</h2><table><thead><tr><th>time</th><th>plan</th><th>mode</th><th></th></tr></thead>
<tbody id="said"></tbody></table>
<dialog id="dialog"></dialog></div>"""


def file(name: str) -> str:
    """Return a file that belongs to the page."""
    return (WEB / name).read_text("utf-8")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table."""
    if not rows:
        return "<p>none</p>"
    more = len(rows) - ROWS
    return ("<table><tr>" + "".join(f'<th scope="col">{each}</th>'
                                    for each in head)
            + "</tr>" + "".join(
                "<tr>" + "".join(f'<td class="text">{escape(cell)}</td>'
                                 for cell in row)
                + "</tr>" for row in rows[:ROWS]) + "</table>"
            + (f"<p>and {more} more</p>" if more > 0 else ""))


def rows_of(found: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return rows of columns."""
    return [dict(zip(found, row)) for row in zip(*found.values())]


def host_row(host: Mapping[str, Any], count: int) -> list[str]:
    """Return a host."""
    now, peak, soon = host["cpu"]
    state = str(host["state"]) if host["known"] else "not heard of"
    return [host["name"], state + ", too hot" * host["hot"],
            f"{now} %, peak {peak} %, forecast {soon} %",
            *(f"{host[each]} %" for each in ("memory", "rx", "tx", "disk")),
            str(count)]


def move_row(move: Mapping[str, Any]) -> list[str]:
    """Return a move that is under way."""
    rest = move["rest"]
    return [move["vm"], f"{move['from']} → {move['to']}", move["phase"],
            f"{human(move['sent'])} of about {human(move['bytes'])}",
            f"{human(move['rate'])}/s",
            "not known" if rest is None else f"{rest} s", move["why"]]


def tables(made: Controller) -> str:
    """Return all as tables."""
    hosts, vms = livemap.hosts(made), rows_of(livemap.vms(made))
    names, count = hosts["name"], [0] * len(hosts["name"])
    for vm in vms:
        count[vm["host"]] += 1
    order = {"broken": 0, "short": 1}
    vms.sort(key=lambda vm: order.get(vm["sla"], 2))
    rows = [host_row(host, vms) for host, vms in zip(rows_of(hosts), count)]
    rows.sort(key=lambda row: "hot" not in row[1])
    return ("<h2>Moves</h2>" + table(
        ("VM", "from, to", "phase", "sent", "rate", "left", "why"),
        [move_row(move) for move in livemap.moves(made)])
        + "<h2>Hosts</h2>" + table(
            ("host", "state", "CPU", "memory", "received", "sent", "disk",
             "VMs"), rows)
        + "<h2>VMs</h2>" + table(("VM", "host", "memory", "promises"), [
            [vm["name"], names[vm["host"]], human(vm["ram"] << 20),
             WORDS[vm["sla"]]] for vm in vms])
        + "<h2>Decisions</h2>" + table(("time", "plan", "mode", ""), [
            [clock(each.until), str(each.id), each.mode, each.text]
            for each in livemap.decisions(made)]))


def main(made: Controller) -> str:
    """Return what changes from round to round, without JavaScript."""
    told = "".join(f'<p class="alarm">{escape(text)}</p>' for text in (
        *(text for _, _, text in made.ledger.alarms()), made.problem) if text)
    return (f'<div id="rows"><p>{clock(made.clock())}, '
            f"{escape(made.settings.name)}</p>{told}{tables(made)}</div>")


def whole(made: Controller) -> str:
    """Return the page."""
    name = escape(made.settings.cluster)
    return ("<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">"
            '<meta name="viewport" content="width=device-width">'
            f'<title>{name}</title><link rel="stylesheet" href="/page.css">'
            '<link rel="icon" href="/icon.svg">'
            '<noscript><meta http-equiv="refresh" content="10"></noscript>'
            '<script src="/page.js" defer></script></head><body><main>'
            f'<h1 id="title">{name}: mode {made.mode().value}'
            f'{", paused" * made.paused()}</h1>{LIVE}'
            '<details id="tables" open><summary>As tables</summary>'
            f"{main(made)}</details></main></body></html>")
