# SPDX-License-Identifier: GPL-2.0-or-later
"""Make sets of templates: pages of memory that several guests have.

If both hosts of a migration have the same set, a page that is in it does not
go over the link. QEMU's command wsm-digest-memory writes which pages a guest
has; "choose" says which of them several guests have, wsm-export-pages writes
those, and "build" makes a set of them.
"""

import argparse
import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator, Optional

from wsm import durable
from wsm.templates import (builder, choose, golden, memory_files, ring_verbs,
                           sets)

PUBLIC = "public"
TENANTS = {PUBLIC: 2}           # of so many a page must be; of others of one
MIB = 1 << 20
Errors = (sets.BadSet, memory_files.BadFile, OSError)


class Failure(Exception):
    """What cannot be done, for people."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Say of which file an error is."""
    try:
        yield
    except (sets.BadSet, memory_files.BadFile) as error:
        raise Failure(f"{path}: {error}") from error
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from error


def positive(text: str) -> int:
    """Return a number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is below 1")
    return value


def several(text: str) -> int:
    """Return a number of guests: what one has is its own."""
    value = int(text)
    if value < 2:
        raise argparse.ArgumentTypeError(
            f"{value} is below 2, and what one guest has is no template")
    return value


def scope(text: str) -> str:
    """Return the name of a scope."""
    if not text or len(text) > 64 or not all(
            c.isascii() and (c.isalnum() or c in "-_.") for c in text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not 1 to 64 letters, digits, '-', '_' and '.'")
    return text


def read_guests(names: list[str], needed: bool) -> list[choose.Guest]:
    """Return the guests of digests, each as [TENANT=]FILE."""
    digests = []
    for name in names:
        tenant, equals, file = name.rpartition("=")
        if needed and not (equals and tenant):
            raise Failure(f"{name}: say whose guest it is, as TENANT={name}; "
                          f"scope '{PUBLIC}' is for pages that guests of "
                          "several tenants have")
        path = Path(file)
        with naming(path):
            digests.append((tenant, memory_files.read_digest(path)))
    return choose.guests_of(digests)


def do_choose(args: argparse.Namespace) -> int:
    """Write which pages are wanted."""
    tenants = TENANTS.get(args.scope, 1)
    guests = read_guests(args.digests, tenants > 1)
    if len(guests) < args.threshold:
        raise Failure(f"these are {len(guests)} guests, and {args.threshold} "
                      "must have a page")
    wanted = choose.choose(guests, args.threshold, tenants, args.max_pages)
    if not wanted:
        raise Failure("no page is wanted: the guests have too little in "
                      "common")
    with naming(args.output):
        durable.write(args.output, memory_files.encode_digest(wanted))
    print(f"{len(wanted)} pages of {len(guests)} guests are wanted, "
          f"{len(wanted) * sets.PAGE / MIB:.1f} MiB; have them exported with "
          "wsm-export-pages")
    return 0


def percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if whole else "-"


def do_table(args: argparse.Namespace) -> int:
    """Show what thresholds would give."""
    guests = read_guests(args.digests, False)
    rows = choose.table(guests, min(args.most, max(1, len(guests) - 1)))
    print("what the other guests have, in percent of a guest's pages")
    print(f"{'in guests':>9} {'MiB':>8} "
          + " ".join(f"{guest.name[:12]:>12}" for guest in guests))
    for row in rows:
        print(f"{row.threshold:>9} {row.pages * sets.PAGE / MIB:>8.1f} "
              + " ".join(f"{percent(hits, len(guest.prefixes)):>12}"
                         for hits, guest in zip(row.hits, guests)))
    return 0


def sources(args: argparse.Namespace
            ) -> Iterator[tuple[bytes, memory_files.Place]]:
    """Yield all pages that the set can be made of."""
    for reader, paths in ((memory_files.pages_of, args.pages),
                          (golden.blocks_of, args.from_image)):
        for path in paths:
            with naming(path):
                yield from reader(path)


def read_wanted(path: Optional[Path]) -> Optional[set[bytes]]:
    """Return the prefixes that are wanted; None: all."""
    if path is None:
        return None
    with naming(path):
        digest = memory_files.read_digest(path)
    return {prefix.to_bytes(sets.PREFIX, "big") for prefix in digest.prefixes}


def do_build(args: argparse.Namespace) -> int:
    """Make a set."""
    if not args.pages and not args.from_image:
        raise Failure("say of what the set shall be: exported pages, or "
                      "--from-image")
    if args.wanted and args.from_image:
        raise Failure("--wanted is about exported pages; make a set of its "
                      "own of images")
    wanted = read_wanted(args.wanted)
    folder = args.folder / args.scope
    try:
        found = builder.gather(sources(args), wanted)
        made = builder.build(folder, found)
    except Errors as error:
        raise Failure(str(error)) from error
    if wanted is not None and len(found) < len(wanted):
        print(f"{len(wanted) - len(found)} of {len(wanted)} wanted pages were "
              "not exported; another guest may have them", file=sys.stderr)
    print(f"{len(found)} pages, {len(found) * sets.PAGE / MIB:.1f} MiB")
    for path in made:
        print(path)
    return 0


def described(header: sets.Header) -> dict[str, Any]:
    """Return what is shown of a file."""
    return {"id": header.id.hex(), "kind": sets.SUFFIXES[header.kind][1:],
            "pages": header.count, "bytes": header.size}


def do_show(args: argparse.Namespace) -> int:
    """Show what files say of themselves."""
    shown = []
    for path in args.files:
        with naming(path), path.open("rb") as file:
            shown.append({"file": str(path),
                          **described(sets.read_header(file))})
    if args.json:
        print(json.dumps({"sets": shown}, indent=4))
        return 0
    for each in shown:
        print(f"{each['file']}: {each['kind']} of {each['pages']} pages\n"
              f"    ID: {each['id']}")
    return 0


def do_check(args: argparse.Namespace) -> int:
    """Read all of some files; return whether one is bad."""
    status = 0
    for path in args.files:
        try:
            with naming(path), path.open("rb") as file:
                _, wrong = sets.check(file)
        except Failure as failure:
            print(failure)
            status = 1
            continue
        if wrong:
            print(f"{path}: {len(wrong)} pages are damaged, the first is "
                  f"number {wrong[0]}")
            status = 1
        else:
            print(f"{path}: good")
    return status


def do_prune(args: argparse.Namespace) -> int:
    """Remove old sets; who has them open can go on with them."""
    with naming(args.folder):
        for path in builder.old_files(args.folder, args.keep):
            print(path)
            if not args.dry_run:
                path.unlink(missing_ok=True)
    return 0


def add_choose(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add what has to do with digests."""
    parser = add("choose", do_choose, "say which pages several guests have")
    parser.add_argument("digests", nargs="+", metavar="[TENANT=]DIGEST",
                        help="what wsm-digest-memory wrote of a guest")
    parser.add_argument("-o", "--output", type=Path, required=True,
                        metavar="WANTED", help="list for wsm-export-pages")
    parser.add_argument("--scope", type=scope, default=PUBLIC,
                        help="for whom the set shall be: 'public', the "
                             "default, or a tenant's name")
    parser.add_argument("--threshold", type=several, default=2, metavar="N",
                        help="so many guests must have a page, default 2")
    parser.add_argument("--max-pages", type=positive,
                        default=sets.MAX_PAGES, metavar="N",
                        help="at most so many, the most frequent ones")
    parser = add("table", do_table, "show what thresholds would give")
    parser.add_argument("digests", nargs="+", metavar="[TENANT=]DIGEST")
    parser.add_argument("--most", type=positive, default=4, metavar="N",
                        help="the highest threshold, default 4")


def add_build(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add what makes sets."""
    parser = add("build", do_build, "make a set")
    parser.add_argument("pages", nargs="*", type=Path, metavar="PAGES",
                        help="what wsm-export-pages wrote")
    parser.add_argument("--wanted", type=Path,
                        help="take only the pages of this list")
    parser.add_argument("--from-image", type=Path, action="append",
                        default=[], metavar="IMAGE",
                        help="the blocks of a raw disk image")
    parser.add_argument("--folder", type=Path, required=True,
                        help="where sets are; each scope has its own folder "
                             "in it")
    parser.add_argument("--scope", type=scope, default=PUBLIC)


def add_files(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add what is about sets that are there."""
    parser = add("show", do_show, "show the IDs of sets")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--json", action="store_true")
    parser = add("check", do_check, "read sets and see whether they are good")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser = add("prune", do_prune, "remove old sets; moves that use them can "
                 "go on")
    parser.add_argument("folder", type=Path, help="of one scope")
    parser.add_argument("--keep", type=positive, default=2, metavar="N",
                        help="how many stay, default 2")
    parser.add_argument("--dry-run", action="store_true",
                        help="only say what would go")


def arguments() -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, function: Callable[[argparse.Namespace], int],
            summary: str) -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, help=summary, description=summary)
        verb.set_defaults(function=function)
        return verb

    add_choose(add)
    add_build(add)
    add_files(add)
    ring_verbs.add(add)
    return parser.parse_args()


def main() -> int:
    """Run the program; return its exit status."""
    args = arguments()
    try:
        result: int = args.function(args)
    except (Failure, *Errors) as failure:
        print(f"wsm-templates: {failure}", file=sys.stderr)
        return 2
    return result
