# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine of guests that TCG and KVM can both run."""

from dataclasses import replace
from typing import Any

from dev.rig.basics import GUEST_BUILD
from dev.rig.image import MIB
from dev.rig.vm import DiskConfig, MachineConfig

KVM, TCG = 'kvm', 'tcg,thread=multi'
# What both have: nothing that only KVM offers
CPU = 'qemu64,kvm=off,-svm,-x2apic'
TSC, HPET = 'clocksource=tsc tsc=reliable', 'clocksource=hpet'
# Where TCG is emulated itself the usual 5 ms leave no time for anything else
BEAT = 'beat_ms=100'
# Small: under KVM in a machine that is emulated, TCG takes minutes to fill and
# read them
DISKS = (DiskConfig('vd0', size=16 * MIB),
         DiskConfig('vd1', fmt='qcow2', size=8 * MIB))
# The saved state of a guest of machine(TCG), from where TCG is faster
BOOTED_BY_TCG = GUEST_BUILD / 'booted-by-tcg'


def machine(accel: str, clock: str = TSC, **fields: Any) -> MachineConfig:
    return replace(MachineConfig(DISKS, accel=accel, cpu=CPU,
                                 kernel_line=f'{clock} {BEAT}',
                                 extra=('-trace', 'wsm_clock_*')), **fields)
