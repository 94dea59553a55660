# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of how two machines are compared: each difference is found."""

import dataclasses
import unittest
from typing import Any

from wsm.plan.fingerprint import (Cpu, Device, DiskFact, Fingerprint, compare,
                                  wsm_version)
from wsm.plan.plain import from_plain, to_plain

CPU = Cpu((("socket-id", 0), ("core-id", 0)), "qemu64-x86_64-cpu",
          (("1.0.EDX", 0x78bfbfd),))
CARD = Device("/machine/peripheral/net0", "virtio-net-pci",
              (("addr", "32"), ("mac", "52:54:00:12:34:56")))
BASE = Fingerprint(
    "pc-i440fx-10.0-machine", 1 << 28, "u", "10.0.13",
    "qemu-wsm 0.4, Debian 1:10.0.13", True, (CPU,), (CARD,),
    (DiskFact("/machine/peripheral/vd0/virtio-backend", 1 << 20),))


class CompareTest(unittest.TestCase):
    """Source and destination."""

    def differences(self, **changes: Any) -> str:
        """Return what differs if the destination is changed so."""
        return "\n".join(map(str, compare(
            BASE, dataclasses.replace(BASE, **changes))))

    def test_equal(self) -> None:
        """The same, also after a journey."""
        self.assertEqual(compare(BASE, BASE), [])
        self.assertEqual(from_plain(Fingerprint, to_plain(BASE)), BASE)

    def test_each(self) -> None:
        """Each member, with both values."""
        other_cpu = dataclasses.replace(CPU, features=(("1.0.EDX", 1),))
        cases: list[tuple[Any, ...]] = [
                ({"machine": "pc-q35-10.0-machine"}, "machine type",
                 "pc-i440fx-10.0-machine", "pc-q35-10.0-machine"),
                ({"memory": 1 << 29}, "memory", "256.0 MiB", "512.0 MiB"),
                ({"memory": (1 << 28) + 1}, "memory", "268435456 bytes",
                 "268435457 bytes"),
                ({"uuid": ""}, "UUID", "none"),
                ({"version": "10.1.0"}, "QEMU", "10.0.13", "10.1.0"),
                ({"package": "qemu-wsm 0.5"}, "qemu-wsm", "0.4", "0.5"),
                ({"whole_system": False}, "whole-system", "missing"),
                ({"cpus": (CPU, CPU)}, "vCPUs", "1 at", "2 at"),
                ({"cpus": (other_cpu,)}, "features of vCPU 0",
                 "1.0.EDX=126614525", "1.0.EDX=1 "),
                ({"cpus": (dataclasses.replace(CPU, type="max"),)},
                 "type of vCPU 0"),
                ({"cpus": (dataclasses.replace(CPU, place=()),)},
                 "place of vCPU 0"),
                ({"cpus": (dataclasses.replace(CPU, filtered=("vmx",)),)},
                 "vmx", "lacks"),
                ({"devices": ()}, "net0", "there at", "missing at"),
                ({"devices": (CARD, Device("/machine/peripheral/b", "rng"))},
                 "/machine/peripheral/b", "missing at the source"),
                ({"devices": (dataclasses.replace(CARD, properties=(
                    ("addr", "32"), ("mac", "52:54:00:12:34:57"))),)},
                 "mac=52:54:00:12:34:56", "mac=52:54:00:12:34:57"),
                ({"disks": (DiskFact(BASE.disks[0].path, 1 << 21),)},
                 "1048576 bytes", "2097152 bytes"),
                ({"disks": ()}, "disk", "missing at")]
        for changes, *words in cases:
            found = self.differences(**changes)
            for word in words:
                self.assertIn(word, found, changes)

    def test_compatible(self) -> None:
        """Versions that may be mixed."""
        other = dataclasses.replace(BASE, version="10.1.2")
        self.assertEqual(compare(BASE, other, frozenset(["10.0-10.1"])), [])
        self.assertEqual(len(compare(other, BASE,
                                     frozenset(["10.0-10.1"]))), 1)

    def test_version(self) -> None:
        """What a QEMU says of itself."""
        self.assertEqual(wsm_version("qemu-wsm 0.4, Debian 1:10"), "0.4")
        self.assertEqual(wsm_version("Debian 1:10"), "none")
