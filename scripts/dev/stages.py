# SPDX-License-Identifier: GPL-2.0-or-later
"""The stages of scripts/test, fast ones first."""

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from dev import checks, debian, narrow, objects, qemu, source
from dev.common import ROOT, Failure, build_lock, output, say
from dev.qemu import Variant
from dev.results import NOT_OK, SKIP, Results, run_plain, run_tap

Test = dict[str, Any]                           # as meson describes it
Environment = dict[str, str]

UNIT_NAME = re.compile(r"test-(wsm|pull)-.*")
FUNCTIONAL = ROOT / "tests/functional/run"
PROPERTY = ROOT / "tests/property/run"
REFERRING = ROOT / "tests/property/run-referring"
REFERRING_RUNS = 5
LIBVIRT = ROOT / "tests/libvirt/run"
PROPERTY_SEEDS = ["1", "2", "3", "4"]
PROPERTY_STEPS = 40
CASE_LINE = re.compile(r"^(ok|not ok|skip) (\S+)[\s#]*(.*)$")
FUZZ = ROOT / "tests/fuzz/run"
MUTANTS = ROOT / "tests/mutants/run"
TSAN_SUPPRESSIONS = ROOT / "scripts/dev/tsan.supp"
UNIT_TIMEOUT = 300
SCRIPTS_TIMEOUT = 900            # all of them in one run
SANITIZER_TIMEOUT = "600"
# What they measure is memory, and sanitizers take a lot of it
MEASURING = ("memory-bound", "many-migrations")


@dataclass
class Run:
    """What to run, and what came of it."""

    results: Results
    pattern: str = ""
    fuzz_seconds: int = 20
    slow: bool = False
    deadline: float = float("inf")

    def selected(self, name: str) -> bool:
        """Return whether the user wants the case @name."""
        return re.search(self.pattern, name) is not None

    def seconds(self, limit: float) -> float:
        """Return how long a program may take: @limit or what is left."""
        return max(1, min(limit, self.deadline - time.monotonic()))


def prepare(_run: Run, names: list[str]) -> None:
    """Install what the stages @names need, then take all else out of PATH."""
    with build_lock():
        debian.install(debian.PACKAGES)
        for stage, packages in (("checks", debian.CHECK_PACKAGES),
                                ("checks", debian.BROWSER_PACKAGES),
                                ("fuzz", debian.FUZZ_PACKAGES)):
            if stage in names:
                with contextlib.suppress(Failure):  # that stage says so
                    debian.install(packages)
        narrow.use()


def static_checks(run: Run) -> None:
    """
    Run scripts/check, and the tests of the scripts themselves.

    Those that look at objects come last: these are compiled first.
    """
    say("static checks")
    with build_lock():
        source.prepare(compose_tree=False)
    checks.run_checks(run.results, checks.CHECKS, run.selected)
    if run.selected("check:scripts"):
        run_plain(run.results, "check:scripts",
                  [str(ROOT / "tests/scripts/run")],
                  run.seconds(SCRIPTS_TIMEOUT))
    if any(run.selected(f"check:{name}") for name in checks.BUILD_CHECKS):
        variant = qemu.build("patched", ["build.ninja"])
        qemu.build_files(variant, [variant.dir / name
                                   for name in objects.needed()])
        checks.run_checks(run.results, checks.BUILD_CHECKS, run.selected,
                          must_run=True)


def unit_tests(variant: Variant) -> list[Test]:
    """Return meson's description of our unit tests in @variant."""
    return [test for test in qemu.introspect(variant, "tests")
            if UNIT_NAME.fullmatch(test["name"])]


def test_environment(variant: Variant, test: Test) -> Environment:
    """Return the environment for one of meson's tests."""
    env = {**os.environ, **test.get("env", {}), **variant.environment}
    if "TSAN_OPTIONS" in variant.environment:
        env["TSAN_OPTIONS"] += f":suppressions={TSAN_SUPPRESSIONS}"
    return env


def selected_cases(run: Run, title: str, cmd: list[str],
                   env: Environment) -> list[str] | None:
    """
    Return options for a GLib test @cmd that choose the selected cases.

    None if no case is selected, [] if all are.
    """
    cases = output(cmd[:1] + ["-l"], env=env).splitlines()
    chosen = [case for case in cases if run.selected(f"{title}:{case}")]
    if len(chosen) == len(cases):
        return []
    return [word for case in chosen for word in ("-p", case)] or None


def run_unit_tests(run: Run, name: str = "patched") -> None:
    """Build and run the C unit tests in the build variant @name."""
    say(f"unit tests, {name}")
    variant = qemu.build(name, ["build.ninja"])
    tests = unit_tests(variant)
    if not tests:
        run.results.add(NOT_OK, f"unit-{name}",
                        "tests/unit/wsm declares no unit test")
        return
    qemu.build_files(variant, [test["cmd"][0] for test in tests])
    prefix = "" if name == "patched" else f"{name}:"
    for test in tests:
        title, env = prefix + test["name"], test_environment(variant, test)
        options: list[str] | None = []
        if run.pattern:
            options = selected_cases(run, title, test["cmd"], env)
        if options is not None:
            run_tap(run.results, title, test["cmd"] + options,
                    run.seconds(UNIT_TIMEOUT), env=env, cwd=variant.dir)


def run_mutants(run: Run) -> None:
    """Break one rule of the C code at a time: unit tests must find it."""
    names = [line.split()[0] for line
             in output([str(MUTANTS), "--list"]).splitlines()]
    chosen = [name for name in names if run.selected(f"mutants:{name}")]
    if chosen:
        say("mutants")
        run_printed(run, "mutants", [str(MUTANTS), "--only",
                                     f"^({'|'.join(chosen)})$"], "mutants:")


def run_fuzzer(run: Run) -> None:
    """
    Run the fuzz target for a bounded time.

    tests/fuzz/run builds it; it exits with 0 if it has found nothing, with
    77 if it cannot run here.
    """
    title = "fuzz:wsm-protocol"
    if not run.selected(title):
        return
    say(f"fuzz target, {run.fuzz_seconds} s")
    try:
        debian.install(debian.FUZZ_PACKAGES)
    except Failure as error:
        run.results.add(SKIP, title, str(error).replace("\n", ""))
        return
    variant = qemu.build("patched", ["build.ninja", "libqemuutil.a",
                                     "libqom.a"])
    run_plain(run.results, title,
              [str(FUZZ), "--seconds", str(run.fuzz_seconds),
               "--qemu-build", str(variant.dir)],
              run.seconds(run.fuzz_seconds + 300))


def kill_group(process: subprocess.Popen[str]) -> None:
    """Kill a program that has run out of time, with all it has started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def printed_cases(run: Run, cmd: list[str], prefix: str = "",
                  env: Environment | None = None) -> tuple[int, str]:
    """
    Run a program that prints such cases, with @prefix added to their names.

    Returns (cases seen, what went wrong).
    """
    seen, bad = 0, False
    seconds = run.seconds(24 * 3600)
    with subprocess.Popen(cmd, cwd=ROOT, text=True, errors="replace",
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          start_new_session=True, env=env) as process:
        timer = threading.Timer(seconds, kill_group, [process])
        timer.start()
        assert process.stdout
        for line in process.stdout:
            if found := CASE_LINE.match(line.rstrip()):
                status, name, why = found.groups()
                run.results.add(status, prefix + name, why)
                seen += 1
                bad = bad or status == NOT_OK
            else:
                print(f"# {line}", end="", flush=True)
        status = process.wait()
        timer.cancel()
        kill_group(process)
    if bad or not status:
        return seen, ""
    if time.monotonic() >= run.deadline:
        return seen, "the time for all tests is used up"
    return seen, f"exit status {status}"


def run_printed(run: Run, title: str, cmd: list[str], prefix: str = "",
                env: Environment | None = None) -> None:
    """Like printed_cases(); what went wrong is a failed case named @title."""
    seen, why = printed_cases(run, cmd, prefix, env)
    if why or not seen:
        run.results.add(NOT_OK, title, why or "no cases")


def chosen_tests(run: Run, program: Path = FUNCTIONAL) -> list[str]:
    """Return the names of the tests of @program that are selected."""
    names = re.findall(r"^([\w.-]+)", output([str(program), "--list"]), re.M)
    return [name for name in names if run.selected(name)]


def sanitizer_environment(variant: Variant) -> Environment:
    """
    Return the environment for guests in a build with sanitizers.

    Leaks are looked for in unit tests only: what just the stack of a
    coroutine points to would be taken for one.
    """
    env = {**test_environment(variant, {}), "WSM_TIMEOUT": SANITIZER_TIMEOUT,
           "WSM_QEMU": str(variant.dir / "qemu-system-x86_64")}
    if "ASAN_OPTIONS" in env:
        env["ASAN_OPTIONS"] += ":detect_leaks=0:verify_asan_link_order=0"
    return env


def run_sanitized(run: Run, name: str) -> None:
    """
    Run the functional tests in a build with sanitizers.

    Not with TSan: QEMU with it, by gcc 12 or clang 14, ends in TSan itself
    soon after TCG has begun to run a guest.
    """
    variant = qemu.build(name)
    chosen = [test for test in chosen_tests(run) if test not in MEASURING]
    if not chosen:
        return
    say(f"functional tests, {name}")
    cmd = [str(FUNCTIONAL)]
    cmd += [word for test in chosen for word in ("--only", test)]
    run_printed(run, f"functional-{name}", cmd, f"{name}:",
                sanitizer_environment(variant))


def run_functional_tests(run: Run, variant: str = "patched") -> None:
    """Build QEMU and run the tests with real guests."""
    if not FUNCTIONAL.exists():
        run.results.add(NOT_OK, "functional", "tests/functional/run is missing")
        return
    qemu.build(variant)
    say("functional tests")
    cmd = [str(FUNCTIONAL)]
    if run.slow:
        cmd.append("--slow")
    if run.pattern:
        chosen = chosen_tests(run)
        if not chosen:
            return
        cmd += [word for name in chosen for word in ("--only", name)]
    seen, why = printed_cases(run, cmd)
    if why:
        run.results.add(NOT_OK, "functional", why)
    elif not seen:
        run.results.add(SKIP, "functional", "no cases")


def run_libvirt_tests(run: Run, suites: list[str],
                      packages: Path | None) -> None:
    """Build QEMU, unless it comes in @packages, and move libvirt's guests."""
    chosen = chosen_tests(run, LIBVIRT)
    if not chosen:
        return
    if not packages:
        qemu.build()
    say("tests with libvirt")
    cmd = [str(LIBVIRT), *(f"--debian={suite}" for suite in suites)]
    cmd += [f"--packages={packages}"] * bool(packages)
    cmd += [word for name in chosen for word in ("--only", name)]
    run_printed(run, "libvirt", cmd, "libvirt:")


def run_property_test(run: Run, variant: str = "patched") -> None:
    """Build QEMU and drive it through random steps."""
    if not run.selected("property"):
        return
    qemu.build(variant)
    say("property test")
    cmd = [str(PROPERTY), "--steps", str(PROPERTY_STEPS)]
    cmd += [word for seed in PROPERTY_SEEDS for word in ("--seed", seed)]
    run_printed(run, "property", cmd)
    cmd = [str(REFERRING), "--runs", str(REFERRING_RUNS)]
    run_printed(run, "property", cmd)


def guarded(run: Run, name: str, function: Callable[..., None],
            *args: object) -> None:
    """Run a stage; if it cannot do its work, that is one failed case."""
    if time.monotonic() >= run.deadline:
        run.results.add(NOT_OK, name, "the time for all tests is used up")
        return
    try:
        function(run, *args)
    except Failure as error:
        print(f"# {error}")
        run.results.add(NOT_OK, name, str(error).splitlines()[0])
