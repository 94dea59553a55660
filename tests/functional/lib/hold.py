# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU whose flushes take as long as a test wants."""

from dataclasses import replace
from pathlib import Path

from dev.rig.basics import run
from dev.rig.vm import MachineConfig

SOURCE = Path(__file__).with_name('hold_flush.c')


class FlushGate:
    """Open at first; while it is shut, flushes of raw images wait.

    With @sync, those of records do instead, and of their folders.
    """

    def __init__(self, folder: Path, sync: bool = False) -> None:
        self._variable = 'WSM_HOLD_SYNC' if sync else 'WSM_HOLD_FLUSH'
        self._library = folder / 'hold_flush.so'
        self._file = folder / 'hold-flush'
        run('gcc', '-O2', '-Wall', '-shared', '-fPIC',
            '-o', str(self._library), str(SOURCE))

    def machine(self, config: MachineConfig) -> MachineConfig:
        return replace(config, environment=(
            ('LD_PRELOAD', str(self._library)),
            (self._variable, str(self._file))))

    def shut(self) -> None:
        self._file.touch()

    def open(self) -> None:
        self._file.unlink()

    def held(self) -> bool:
        """Whether a flush has waited."""
        return self._file.with_suffix('.held').exists()
