# SPDX-License-Identifier: GPL-2.0-or-later
"""Build and run the fuzz target of the wsm parsers.

Needs clang with libFuzzer and a QEMU build directory, whose headers and
libqemuutil.a it uses; the parsers themselves are compiled here, with
sanitizers.  First the regression inputs run, then new ones for some seconds.
The corpus is kept in build/fuzz, so a later run goes on from there.

Exit status: 0 nothing found, 1 something found or it does not build,
77 skipped because something it needs is missing.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz import seeds

REPO = Path(__file__).resolve().parents[2]
FUZZ = REPO / "tests" / "fuzz"
SOURCES = [FUZZ / "fuzz-wsm-protocol.c", REPO / "migration/wsm/wire/message.c",
           REPO / "migration/wsm/wire/payload.c",
           REPO / "migration/wsm/map/format.c",
           REPO / "migration/wsm/map/load.c",
           REPO / "migration/wsm/map/missing.c",
           REPO / "migration/wsm/memory/kept.c",
           REPO / "migration/wsm/memory/payload.c",
           REPO / "migration/wsm/memory/prints.c",
           REPO / "migration/wsm/memory/ring.c",
           REPO / "migration/wsm/wire/start.c",
           REPO / "migration/wsm/wire/runs.c",
           REPO / "migration/wsm/wire/sets.c"]
SANITIZERS = ["-fsanitize=fuzzer,address,undefined",
              "-fno-sanitize-recover=all"]
SKIPPED = 77


class Skip(Exception):
    """Something that the fuzz target needs is missing."""


def find_qemu_build(wanted: Path | None) -> Path:
    candidates = [wanted] if wanted else sorted(
        [REPO / "build", *REPO.glob("build/*"), *REPO.glob("build/*/*")])
    for folder in candidates:
        if ((folder / "compile_commands.json").exists() and
                (folder / "libqemuutil.a").exists()):
            return folder.resolve()
    raise Skip(f"no QEMU build in {wanted or REPO / 'build'}")


def qemu_flags(build: Path) -> list[str]:
    """The flags for headers with which QEMU compiles a pure file."""
    commands = json.loads((build / "compile_commands.json").read_text())
    for entry in commands:
        if entry["file"].endswith("migration/xbzrle.c"):
            return header_flags(shlex.split(entry["command"]))
    raise Skip(f"{build} does not build migration/xbzrle.c")


def header_flags(words: list[str]) -> list[str]:
    flags = []
    for index, word in enumerate(words):
        if word in ("-isystem", "-iquote"):
            flags += [word, words[index + 1]]
        elif word.startswith(("-I", "-D", "-std=", "-m")) and word[:3] not in (
                "-MD", "-MQ", "-MF"):
            flags.append(word)
    return flags


def libraries() -> list[str]:
    result = subprocess.run(
        ["pkg-config", "--libs", "glib-2.0", "gmodule-2.0"],
        check=True, capture_output=True, text=True)
    return shlex.split(result.stdout)


def compiler() -> str:
    clang = shutil.which("clang")
    if not clang:
        raise Skip("no clang")
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder) / "probe.c"
        probe.write_text("int LLVMFuzzerTestOneInput(const char *p, long n);\n"
                         "int LLVMFuzzerTestOneInput(const char *p, long n)\n"
                         "{ return p[n - n] & 0; }\n")
        result = subprocess.run(
            [clang, *SANITIZERS, str(probe), "-o", f"{folder}/probe"],
            capture_output=True, check=False)
    if result.returncode:
        raise Skip("clang has no libFuzzer or no sanitizers")
    return clang


def objects(qemu: Path) -> list[Path]:
    """What the log of a bitmap's trace events needs beside libqemuutil.a."""
    return sorted((qemu / "libqom.a.p").glob("*.o"))


def build_target(qemu: Path, output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [compiler(), "-g", "-O1", "-fwrapv", "-fno-strict-aliasing",
         *SANITIZERS, "-iquote", str(REPO), *qemu_flags(qemu),
         *map(str, SOURCES), *map(str, objects(qemu)),
         str(qemu / "libqemuutil.a"), *libraries(), "-lm", "-o", str(output)],
        check=True, cwd=qemu)


def fuzz(target: Path, work: Path, seconds: int) -> None:
    corpus, regressions = work / "corpus", work / "regressions"
    corpus.mkdir(exist_ok=True)
    shutil.rmtree(regressions, ignore_errors=True)
    seeds.write(regressions, seeds.regressions(FUZZ / "regressions.txt"))
    seeds.write(work / "seeds", seeds.seeds())
    prefix = f"-artifact_prefix={work}/found-"
    # -runs=0: only what the folder has, and what it has is not changed
    subprocess.run([target, "-runs=0", "-verbosity=0", prefix, regressions],
                   check=True)
    if seconds:
        subprocess.run(
            [target, f"-max_total_time={seconds}", "-max_len=8192",
             "-timeout=10", "-rss_limit_mb=1024", "-verbosity=0",
             "-print_final_stats=1", prefix, corpus, work / "seeds"],
            check=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Build and run the fuzz target of the wsm parsers")
    parser.add_argument("--seconds", type=int, default=20,
                        help="how long to try new inputs (default 20; "
                        "0: only the regression inputs)")
    parser.add_argument("--qemu-build", type=Path, metavar="DIR",
                        help="QEMU build directory (default: the first one "
                        "below build)")
    parser.add_argument("--work", type=Path, default=REPO / "build" / "fuzz",
                        metavar="DIR", help="where the target, its corpus "
                        "and what it finds go (default build/fuzz)")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    work = args.work.resolve()
    target = work / "fuzz-wsm-protocol"
    try:
        build_target(find_qemu_build(args.qemu_build), target)
        fuzz(target, work, args.seconds)
    except Skip as reason:
        print(f"fuzz: skipped: {reason}", file=sys.stderr)
        return SKIPPED
    except subprocess.CalledProcessError as error:
        print(f"fuzz: {Path(error.cmd[0]).name} failed with status "
              f"{error.returncode}; what it found is in {work}/found-*",
              file=sys.stderr)
        return 1
    return 0
