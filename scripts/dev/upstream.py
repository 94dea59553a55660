# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's own tests on stock and on patched QEMU, and what differs.

Without the capability whole-system our changes must change nothing.  Some of
QEMU's tests fail or are skipped on a given machine whatever we do; therefore
the same tests run on a build without our changes, and only a test that fails
there too is forgiven.
"""

import os
import re
from typing import Any, Iterator

from dev import qemu
from dev.common import BUILD, Failure, say, write_if_changed
from dev.qemu import Variant
from dev.results import NOT_OK, OK, Results, run_plain, run_tap

Test = dict[str, Any]                           # as meson describes it
Outcome = dict[str, dict[str, Results]]         # suite: variant

REPORT_DIR = BUILD / "upstream"
SUITES = ("unit", "migration-tcg", "migration-kvm",
          "iotests-raw", "iotests-qcow2")
MIGRATION_TEST = "qtest-x86_64/migration-test"
MIGRATION_TIMEOUT = 4 * 3600
IOTEST_TIMEOUT = 600
STORAGE_DAEMON = "storage-daemon/qemu-storage-daemon"

# There is no iotests group for most of this, so the text of a test decides.
IOTEST_TEXT = re.compile(r"^# group:.*\bmigration\b|drive-mirror|"
                         r"blockdev-mirror|drive-backup|blockdev-backup|"
                         r"block-dirty-bitmap|nbd-server", re.M)

# Takes KVM away from a QEMU that was given '-accel kvm -accel tcg'.
TCG_WRAPPER = """#!/usr/bin/env python3
import os, sys
args, result = sys.argv[1:], []
while args:
    if args[0] == "-accel" and args[1].split(",")[0] == "kvm":
        del args[:2]
    else:
        result.append(args.pop(0))
os.execv({program!r}, [{program!r}] + result)
"""

# With KVM in a virtual machine the dirty ring of these stays empty, and they
# wait for ever, on stock QEMU as well.
KVM_SKIPPED = ("/x86_64/migration/dirty_ring",
               "/x86_64/migration/vcpu_dirty_limit")


def kvm_works() -> bool:
    """Return whether this user may use KVM."""
    return os.access("/dev/kvm", os.R_OK | os.W_OK)


def meson_tests(variant: Variant) -> list[Test]:
    """Return meson's descriptions of QEMU's tests, without our own."""
    return [test for test in qemu.introspect(variant, "tests")
            if "wsm" not in "".join(test["suite"])
            and not re.match("test-(wsm|pull)-", test["name"])]


def run_meson_test(results: Results, variant: Variant, test: Test,
                   environment: dict[str, str]) -> None:
    """Run one of QEMU's tests, whatever it speaks."""
    runner = run_tap if test["protocol"] == "tap" else run_plain
    timeout = max(MIGRATION_TIMEOUT if test["name"] == MIGRATION_TEST else 0,
                  4 * test["timeout"])
    runner(results, test["name"], test["cmd"], timeout,
           env={**os.environ, **test["env"], **environment},
           cwd=test["workdir"] or variant.dir)


def run_unit(results: Results, variant: Variant, pattern: str) -> None:
    """Run QEMU's unit tests."""
    tests = [test for test in meson_tests(variant)
             if any(suite.endswith(":unit") for suite in test["suite"])
             and re.search(pattern, test["name"])]
    # Some are scripts that Python runs, which nobody compiles
    qemu.build_files(variant, [test["cmd"][0] for test in tests
                               if "pyvenv" not in test["cmd"][0]])
    for test in tests:
        run_meson_test(results, variant, test, {})


def run_migration(results: Results, variant: Variant, pattern: str,
                  tcg: bool) -> None:
    """Run QEMU's migration-test, with TCG or with KVM."""
    if not tcg and not kvm_works():
        return
    program = variant.dir / "qemu-system-x86_64"
    if tcg:
        wrapper = REPORT_DIR / variant.name / "qemu-system-x86_64"
        write_if_changed(wrapper, TCG_WRAPPER.format(
            program=str(program)).encode(), 0o755)
        program = wrapper
    test = next(test for test in meson_tests(variant)
                if test["name"] == MIGRATION_TEST)
    qemu.build_files(variant, test["cmd"][:1])
    # meson adds --full where KVM is; that takes hours in a virtual machine
    cmd = [word for word in test["cmd"] if word != "--full"]
    cmd += ["-p", pattern] if pattern.startswith("/") else []
    for name in () if tcg else KVM_SKIPPED:
        cmd += ["-s", name]
    run_meson_test(results, variant, {**test, "cmd": cmd},
                   {"QTEST_QEMU_BINARY": str(program)})


def iotests(variant: Variant, pattern: str) -> list[str]:
    """Return the names of the iotests that concern what we change."""
    folder = variant.tree / "tests/qemu-iotests"
    paths = [*folder.glob("[0-9][0-9][0-9]"), *folder.glob("tests/*")]
    return sorted(path.name for path in paths
                  if path.is_file() and not path.suffix
                  and re.search(pattern, path.name)
                  and IOTEST_TEXT.search(path.read_text(encoding="utf-8")))


def run_iotests(results: Results, variant: Variant, pattern: str,
                image_format: str) -> None:
    """Run QEMU's iotests on images of one format, one test at a time."""
    qemu.build_files(variant, [variant.dir / name
                               for name in (STORAGE_DAEMON, "qemu-nbd")])
    folder = variant.dir / "tests/qemu-iotests"
    scratch = REPORT_DIR / variant.name / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "TEST_DIR": str(scratch),
                   "PYTHON": str(variant.dir / "pyvenv/bin/python3")}
    for name in iotests(variant, pattern):
        run_tap(results, f"iotest {name}",
                ["./check", "-tap", f"-{image_format}", name],
                IOTEST_TIMEOUT, env=environment, cwd=folder)


def run_suite(suite: str, variant: Variant, pattern: str) -> Results:
    """Run one of SUITES on @variant; return its Results."""
    say(f"{suite}, {variant.name} QEMU")
    results = Results()
    if suite == "unit":
        run_unit(results, variant, pattern)
    elif suite.startswith("migration"):
        run_migration(results, variant, pattern, suite.endswith("tcg"))
    else:
        run_iotests(results, variant, pattern, suite.split("-")[1])
    return results


def table(outcome: Outcome) -> Iterator[str]:
    """Return Markdown lines: the counts of each suite on each variant."""
    yield "| suite | QEMU | passed | failed | skipped |"
    yield "|---|---|---|---|---|"
    for suite, by_variant in outcome.items():
        for name, results in by_variant.items():
            counts = " | ".join(str(results.count(status))
                                for status in (OK, NOT_OK, "skip"))
            yield f"| {suite} | {name} | {counts} |"


def failures(outcome: Outcome) -> dict[str, dict[str, set[str]]]:
    """Return {suite: {"stock": set of names, "patched": set of names}}."""
    return {suite: {name: set(results.names(NOT_OK))
                    for name, results in by_variant.items()}
            for suite, by_variant in outcome.items()}


def lost(outcome: Outcome) -> list[str]:
    """Return the names that pass on stock QEMU and not on patched QEMU."""
    return [f"{suite}: {name}" for suite, by_variant in outcome.items()
            for name in sorted(set(by_variant["stock"].names(OK))
                               - set(by_variant["patched"].names(OK)))]


def report(outcome: Outcome) -> str:
    """Return the report as Markdown."""
    lines = ["# QEMU's own tests: stock and patched", "", *table(outcome)]
    lines += ["", "## Passed on stock QEMU, not on patched QEMU", ""]
    lines += [f"- {name}" for name in lost(outcome)] or ["none"]
    for which in ("stock", "patched"):
        lines += ["", f"## Failed on {which} QEMU", ""]
        lines += [f"- {suite}: {name}"
                  for suite, sets in failures(outcome).items()
                  for name in sorted(sets[which])] or ["none"]
    return "\n".join(lines) + "\n"


def compare(suites: list[str], pattern: str) -> int:
    """
    Run @suites on both builds, write the report; return the exit status.

    It is 0 only if whatever passes on stock QEMU passes on patched QEMU,
    and nothing fails there that does not fail on stock QEMU.
    """
    variants = [qemu.build("stock"), qemu.build("patched")]
    outcome = {suite: {variant.name: run_suite(suite, variant, pattern)
                       for variant in variants}
               for suite in suites}
    REPORT_DIR.mkdir(parents=True, exist_ok=True)
    text = report(outcome)
    (REPORT_DIR / "report.md").write_text(text, encoding="utf-8")
    print(text)
    for suite, by_variant in outcome.items():
        stock = by_variant["stock"]
        if stock.cases and not stock.count(OK):
            raise Failure(f"{suite}: nothing passes on stock QEMU, so this "
                          "compares nothing; see the output above")
    if not any(by_variant["stock"].cases for by_variant in outcome.values()):
        raise Failure("no test has run")
    new = [f"{suite}: {name}" for suite, sets in failures(outcome).items()
           for name in sorted(sets["patched"] - sets["stock"])]
    print(f"{REPORT_DIR}/report.md: {len(new)} new failures, "
          f"{len(lost(outcome))} tests that do not pass any more")
    return 1 if new or lost(outcome) else 0
