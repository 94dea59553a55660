# SPDX-License-Identifier: GPL-2.0-or-later
"""How much memory a QEMU takes, and a guest of which that is known."""

import threading

from dev.rig.basics import POLL_SECONDS
from dev.rig.vm import DiskConfig, MachineConfig, Vm

MEMORY = 256
CODE_CACHE = 32


def preallocated(disk: DiskConfig) -> MachineConfig:
    """All of the guest's RAM is resident from the start."""
    return MachineConfig(
        (disk,), machine='pc,memory-backend=ram',
        extra=('-object', f'memory-backend-ram,id=ram,size={MEMORY}M,'
                          'prealloc=on'),
        accel=f'tcg,thread=multi,tb-size={CODE_CACHE}')


class Meter:
    """Samples the resident memory of a QEMU; use as a context."""

    def __init__(self, vm: Vm) -> None:
        self._vm = vm
        self._stop = threading.Event()
        self._first = vm.resident_bytes()
        self.growth = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> 'Meter':
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            now = self._vm.resident_bytes()
            self.growth = max(self.growth, now - self._first)
