# SPDX-License-Identifier: GPL-2.0-or-later
"""Run the functional tests: real guests that move with their disks.

The tested QEMU is build/qemu-system-x86_64, or that named by $WSM_QEMU.
"""

import argparse
import fnmatch
import importlib
import re
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Optional
from xml.etree import ElementTree

from dev.rig import guest_image
from dev.rig.basics import QEMU, Skip, require
from dev.rig.scene import Scene, supports_wsm
from tests.functional.lib.registry import TESTS, Test

HERE = Path(__file__).resolve().parent
# What a QEMU that was compiled with one prints
SANITIZER = re.compile(r'(Address|Thread)Sanitizer:|: runtime error: ')


@dataclass
class Result:
    test: Test
    seconds: float
    failure: str = ''
    skipped: str = ''

    def line(self) -> str:
        if self.skipped:
            return f'skip {self.test.name} # {self.skipped}'
        verdict = 'not ok' if self.failure else 'ok'
        return f'{verdict} {self.test.name} {self.seconds:.1f}'


def reason_to_skip(test: Test, options: argparse.Namespace,
                   wsm: bool) -> Optional[str]:
    if test.slow and not options.slow:
        return 'slow, use --slow'
    if test.needs_wsm and not wsm:
        return f'{QEMU.name} has no capability whole-system'
    return None


def run_in(scene: Scene, test: Test) -> str:
    """Run a test; returns why it failed, or ''."""
    try:
        test.function(scene)
        for vm in scene.vms:
            require(not vm.crashed(), f'{vm.name} crashed')
            require(not SANITIZER.search(vm.stderr()),
                    f'{vm.name}: a sanitizer has found something')
    except Skip:
        raise
    except Exception as err:    # pylint: disable=broad-except
        frame = traceback.extract_tb(err.__traceback__)
        where = [f'{Path(entry.filename).name}:{entry.lineno}'
                 for entry in frame[1:]]
        return (f'{type(err).__name__}: {err}\n'
                f'at {" < ".join(reversed(where))}\n{scene.report()}')
    return ''


def run_test(test: Test, options: argparse.Namespace, wsm: bool) -> Result:
    skipped = reason_to_skip(test, options, wsm)
    if skipped:
        return Result(test, 0, skipped=skipped)
    start = time.monotonic()
    scene = Scene(test.config)
    result = Result(test, 0)
    try:
        result.failure = run_in(scene, test)
    except Skip as err:
        result.skipped = str(err)
    finally:
        keep = options.keep and bool(result.failure)
        scene.close(keep)
    result.seconds = time.monotonic() - start
    if keep:
        result.failure += f'\nkept: {scene.folder}'
    return result


def write_junit(path: Path, results: list[Result], name: str) -> None:
    suite = ElementTree.Element(
        'testsuite', name=name, tests=str(len(results)),
        failures=str(sum(bool(r.failure) for r in results)),
        skipped=str(sum(bool(r.skipped) for r in results)))
    for result in results:
        case = ElementTree.SubElement(
            suite, 'testcase', classname=name,
            name=result.test.name, time=f'{result.seconds:.1f}')
        if result.failure:
            ElementTree.SubElement(case, 'failure').text = result.failure
        if result.skipped:
            ElementTree.SubElement(case, 'skipped', message=result.skipped)
    ElementTree.ElementTree(suite).write(path, 'utf-8', True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which tests, and what becomes of them."""
    parser.add_argument('--list', action='store_true',
                        help='print the tests and what each is about')
    parser.add_argument('--only', metavar='PATTERN', action='append',
                        help='run tests whose name matches (shell pattern)')
    parser.add_argument('--slow', action='store_true',
                        help='run the slow tests too')
    parser.add_argument('--junit', metavar='FILE', type=Path)
    parser.add_argument('--keep', action='store_true',
                        help='keep the files of tests that fail')


def chosen(patterns: Optional[list[str]]) -> list[Test]:
    return [test for test in TESTS.values()
            if not patterns or any(fnmatch.fnmatch(test.name, pattern)
                                   for pattern in patterns)]


def run_chosen(options: argparse.Namespace, suite: str) -> int:
    """Run the tests that are registered; return the exit status."""
    # So that what is running is cleaned up also when we are told to end
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    tests = chosen(options.only)
    if options.list:
        for test in tests:
            slow = ' (slow)' if test.slow else ''
            print(f'{test.name}{slow}: {test.summary}')
        return 0
    if not tests:
        sys.exit('no such test')
    if not QEMU.exists():
        sys.exit(f'{QEMU} does not exist: build it, or set WSM_QEMU')
    guest_image.build()
    wsm = supports_wsm()
    results = []
    for test in tests:
        result = run_test(test, options, wsm)
        results.append(result)
        print(result.line(), flush=True)
        if result.failure:
            print('    ' + result.failure.replace('\n', '\n    '), flush=True)
    if options.junit:
        write_junit(options.junit, results, suite)
    failed = sum(bool(result.failure) for result in results)
    skipped = sum(bool(result.skipped) for result in results)
    print(f'{len(results) - failed - skipped} passed, {failed} failed, '
          f'{skipped} skipped')
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description='functional tests')
    add_arguments(parser)
    options = parser.parse_args()
    for path in sorted(HERE.glob('test_*.py')):
        importlib.import_module(f'{__package__}.{path.stem}')
    return run_chosen(options, 'functional')
