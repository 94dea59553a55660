# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU whose flushes, or messages, take as long as a test wants."""

import os
import sys
from dataclasses import replace
from pathlib import Path

from dev.rig.basics import shared_library
from dev.rig.vm import MachineConfig
from dev.rig.wire import Type

HERE = Path(__file__).parent


def preloaded(name: str, folder: Path, where: Path = HERE) -> Path:
    """Compile NAME.c to be preloaded, unless $WSM_PRELOAD is where it is."""
    library = Path(os.environ.get('WSM_PRELOAD', folder)) / f'{name}.so'
    if not library.exists():
        shared_library(where / f'{name}.c', library)
    return library


def preloading(config: MachineConfig, library: Path, variable: str,
               value: object) -> MachineConfig:
    """Return a machine with one more library, and what that shall know."""
    environment = dict(config.environment)
    loaded = environment.get('LD_PRELOAD', '').split(':')
    environment['LD_PRELOAD'] = ':'.join(dict.fromkeys(
        [*filter(None, loaded), str(library)]))
    environment[variable] = str(value)
    return replace(config, environment=tuple(environment.items()))


class FlushGate:
    """Open at first; while it is shut, flushes of raw images wait.

    With @sync, those of records do instead, and of their folders.
    """

    def __init__(self, folder: Path, sync: bool = False) -> None:
        self._variable = 'WSM_HOLD_SYNC' if sync else 'WSM_HOLD_FLUSH'
        self._library = preloaded('hold_flush', folder)
        self._base = folder / self._variable.lower()
        self._file = self._base

    def machine(self, config: MachineConfig) -> MachineConfig:
        return preloading(config, self._library, self._variable, self._base)

    def shut(self) -> None:
        self._file.touch()

    def open(self) -> None:
        self._file.unlink()

    def held(self) -> bool:
        """Whether a flush has waited."""
        return Path(f'{self._file}.held').exists()


class UnlinkGate(FlushGate):
    """The same for the removal of records, or of maps."""

    def __init__(self, folder: Path, maps: bool = False) -> None:
        super().__init__(folder)
        self._variable = 'WSM_HOLD_UNLINK'
        self._base = folder / self._variable.lower()
        self._file = self._base.with_suffix('.map' if maps else '.wsm')


class ReadGate:
    """Open at first; then reads of images go wrong, or wait."""

    WRONG, FAIL, LATE = 'wrong', 'fail', 'late'

    def __init__(self, folder: Path) -> None:
        self._library = preloaded('hold_read', folder)
        self._base = folder / 'hold-read'

    def machine(self, config: MachineConfig) -> MachineConfig:
        return preloading(config, self._library, 'WSM_HOLD_READ', self._base)

    def _file(self, how: str) -> Path:
        return self._base.with_suffix(f'.{how}')

    def shut(self, how: str) -> None:
        self._file(how).touch()

    def open(self, how: str) -> None:
        self._file(how).unlink()


class SendGate:
    """The QEMUs of a host: a block message of theirs waits, or their start.

    Open at first.  Only messages that are encrypted are held.
    """

    START = 'start'

    def __init__(self, folder: Path, name: str) -> None:
        self._library = preloaded('hold_send', folder)
        self._base = folder / f'hold-{name}'

    def machine(self, config: MachineConfig) -> MachineConfig:
        """A machine whose messages can be held."""
        return preloading(config, self._library, 'WSM_HOLD_SEND', self._base)

    def program(self, binary: Path) -> Path:
        """A program that starts such a machine."""
        path = self._base.with_suffix('.d') / binary.name
        path.parent.mkdir()
        path.write_text(
            f'#!{sys.executable}\n'
            'import os, sys\n'
            f'os.environ["LD_PRELOAD"] = {str(self._library)!r}\n'
            f'os.environ["WSM_HOLD_SEND"] = {str(self._base)!r}\n'
            f'os.execv({str(binary)!r}, sys.argv)\n', 'utf-8')
        path.chmod(0o755)
        return path

    def _file(self, what: object) -> Path:
        if isinstance(what, Type):
            what = int(what)
        return Path(f'{self._base}.{what}')

    def shut(self, what: object) -> None:
        """Hold messages of a type, or START."""
        self._file(what).touch()

    def open(self) -> None:
        """Let all go."""
        for path in self._base.parent.glob(f'{self._base.name}.*'):
            if path.suffix not in ('.held', '.d'):
                path.unlink()

    def held(self, what: object) -> bool:
        """Whether such a one has waited."""
        return Path(f'{self._file(what)}.held').exists()
