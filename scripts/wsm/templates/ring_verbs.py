# SPDX-License-Identifier: GPL-2.0-or-later
"""What wsm-templates does with a ring of nodes that keep pages of sets."""

import argparse
import os
import ssl
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Optional

from wsm.templates import ring, sets
from wsm.templates.ring_client import (AT_ONCE, BadNode, Node, Place,
                                       parse_place)


@dataclass
class Share:
    """What one node is to keep: numbers of pages, and what came of it."""

    place: Place
    numbers: list[int] = field(default_factory=list)
    missing: int = 0
    kept: int = 0
    problem: str = ""


def shares(places: list[Place], replicas: int,
           hashes: list[bytes]) -> list[Share]:
    """Return what each node is to keep of pages with these @hashes."""
    found = [Share(place) for place in places]
    seeds = [ring.seed(place.name) for place in places]
    for number, page in enumerate(hashes):
        for index in ring.choose(seeds, page, replicas):
            found[index].numbers.append(number)
    return found


def batches(numbers: list[int]) -> Iterator[list[int]]:
    """Yield @numbers, AT_ONCE at a time."""
    for first in range(0, len(numbers), AT_ONCE):
        yield numbers[first:first + AT_ONCE]


def read_page(file: BinaryIO, header: sets.Header, number: int) -> bytes:
    """Return a page of an open file that has them."""
    return os.pread(file.fileno(), sets.PAGE,
                    header.pages_at + number * sets.PAGE)


Missing = Callable[[Node, list[int]], None]


def go_through(share: Share, hashes: list[bytes],
               tls: Optional[ssl.SSLContext], content: bool,
               missing: Missing) -> None:
    """Ask a node for its share; call @missing for what is not there."""
    try:
        node = Node(share.place, tls)
        try:
            for batch in batches(share.numbers):
                there = node.have([hashes[n] for n in batch], content)
                away = [n for n in batch if hashes[n] not in there]
                share.missing += len(away)
                if away:
                    missing(node, away)
                    share.kept += len(away)
        finally:
            node.close()
    except BadNode as error:
        share.problem = str(error)


def tls_of(args: argparse.Namespace) -> Optional[ssl.SSLContext]:
    """Return how nodes are spoken to, from a folder as QEMU has them."""
    if args.tls is None:
        return None
    context = ssl.create_default_context(cafile=str(args.tls / "ca-cert.pem"))
    certificate = args.tls / "client-cert.pem"
    if certificate.exists():
        context.load_cert_chain(certificate, args.tls / "client-key.pem")
    return context


def opened(args: argparse.Namespace, file: BinaryIO
           ) -> tuple[sets.Header, list[bytes], list[Share]]:
    """Return what the set is, and who is to keep what of it."""
    names = [place.name for place in args.node]
    if len(set(names)) < len(names) or len(names) > ring.MAX_NODES:
        raise sets.BadSet(f"a ring has at most {ring.MAX_NODES} nodes, and no "
                          "two of the same name")
    header = sets.read_header(file)
    if header.kind == sets.INDEX:
        raise sets.BadSet("this file has no list of the set: give that with "
                          "its pages, or with its list")
    hashes = list(sets.read_entries(file, header))
    return header, hashes, shares(args.node, args.replicas, hashes)


def report(found: list[Share], what: str) -> int:
    """Say what became of each node; return the exit status."""
    status = 0
    for share in found:
        lacks = share.missing - share.kept
        print(f"{share.place.name}: {len(share.numbers)} pages, "
              f"{share.missing} were missing" + what.format(share.kept))
        if share.problem:
            print(f"wsm-templates: {share.place.name}: {share.problem}",
                  file=sys.stderr)
        if share.problem or lacks:
            status = 1
    return status


def do_load(args: argparse.Namespace) -> int:
    """Have the nodes keep the pages of a set; write its list."""
    with args.file.open("rb") as file:
        header, hashes, found = opened(args, file)
        if header.kind != sets.PAGES:
            raise sets.BadSet("this file has no pages")
        for share in found:
            go_through(share, hashes, tls_of(args), args.content,
                       lambda node, away: node.put(
                           [(hashes[n], read_page(file, header, n))
                            for n in away]))
    print(sets.write_file(args.file.parent,
                          sets.Header(sets.LIST, header.count, header.id),
                          hashes, (), 0o640))
    return report(found, ", {} are kept now")


def do_ring_check(args: argparse.Namespace) -> int:
    """Say what the nodes lack of a set."""
    with args.file.open("rb") as file:
        _, hashes, found = opened(args, file)
        for share in found:
            go_through(share, hashes, tls_of(args), args.content,
                       lambda node, away: None)
            share.kept = 0
    return report(found, "")


def place(text: str) -> Place:
    """Return a node."""
    try:
        return parse_place(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_nodes(parser: argparse.ArgumentParser) -> None:
    """Add what says which ring it is."""
    parser.add_argument("--node", type=place, action="append", required=True,
                        metavar="[NAME=]ADDRESS",
                        help="a node, HOST:PORT or unix:PATH, once for each; "
                             "names as QEMU is told them")
    parser.add_argument("--replicas", type=int, default=2, metavar="N",
                        choices=range(1, ring.MAX_REPLICAS + 1),
                        help="so many nodes keep each page, default 2")
    parser.add_argument("--tls", type=Path, metavar="FOLDER",
                        help="with TLS: folder with ca-cert.pem and, if the "
                             "nodes want it, client-cert.pem and "
                             "client-key.pem")
    parser.add_argument("--content", action="store_true",
                        help="look at the pages that are there, too")


def add(add_verb: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the verbs."""
    parser = add_verb("load", do_load, "have a ring keep the pages of a set")
    parser.add_argument("file", type=Path, metavar="ID.pages")
    add_nodes(parser)
    parser = add_verb("ring-check", do_ring_check,
                      "say which pages of a set a ring lacks")
    parser.add_argument("file", type=Path, metavar="FILE",
                        help="ID.pages or ID.list")
    add_nodes(parser)
