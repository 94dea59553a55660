# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests set up on both sides before the destination listens."""

from typing import Callable

from dev.rig.scene import Scene
from dev.rig.vm import Vm
from tests.functional.lib import tls

Setup = Callable[[Scene, Vm, Vm], None]
PREEMPT = ('postcopy-ram', 'postcopy-preempt')


def nothing(_scene: Scene, _source: Vm, _destination: Vm) -> None:
    """All is as it is."""


def caps(*names: str) -> Setup:
    """Return a set-up with these capabilities."""
    def setup(_scene: Scene, source: Vm, destination: Vm) -> None:
        for vm in (source, destination):
            vm.set_caps(*names)
    return setup


def multifd(channels: int = 3) -> Setup:
    """Return a set-up with so many channels of multifd."""
    def setup(_scene: Scene, source: Vm, destination: Vm) -> None:
        for vm in (source, destination):
            vm.set_caps('multifd')
            vm.set_params(multifd_channels=channels)
    return setup


def with_tls(setup: Setup) -> Setup:
    """Return the same with TLS by certificates."""
    def setup_both(scene: Scene, source: Vm, destination: Vm) -> None:
        setup(scene, source, destination)
        tls.use_x509_on_both(scene, source, destination)
    return setup_both
