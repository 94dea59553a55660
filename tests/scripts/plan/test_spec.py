# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of the description of a VM."""

import dataclasses
import json
import unittest
from typing import Any

from wsm.plan import spec
from wsm.plan.plain import BadData

from tests.scripts.plan.properties import over

TEXT = """\
name = "db1"
uuid = "3c6f0000-1111-2222-3333-444455556666"
args = ["-machine", "pc-i440fx-10.0", "-m", "8192",
  "-blockdev", "driver=${disk.vd0.format},node-name=vd0,file.driver=${disk.vd0.protocol},file.filename=${disk.vd0.path}",
  "-device", "virtio-blk-pci,drive=vd0,id=vd0",
  "-netdev", "tap,id=net0,ifname=${net.net0.ifname},script=no",
  "-kernel", "${file.kernel}", "-append", "root=$$x,y",
  "-vnc", "127.0.0.1:${port.vnc.display}"]
[disk.vd0]
format = "qcow2"
size = 107374182400
format_at.beta = "raw"
[net.net0]
network = "lan"
[file.kernel]
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
size = 5
[sla]
class = "gold"
[placement]
mode = "ask"
"""
PLACE = spec.Place("/run/wsm/vm/db1", {"vd0": ("/srv/a,b/x.qcow2", "qcow2")},
                   {"net0": "w0123abcd"}, {"vnc": 5907},
                   {"kernel": "/boot/k,1"})


class ReadTest(unittest.TestCase):
    """TOML in and out."""

    def test_round_trip(self) -> None:
        """What is written is what was read, and so is its digest."""
        one = spec.loads(TEXT)
        two = spec.loads(spec.dumps(one))
        self.assertEqual(one, two)
        self.assertEqual(spec.digest(one), spec.digest(two))
        self.assertEqual(one.disk["vd0"].format_on("beta"), "raw")
        self.assertEqual(one.disk["vd0"].format_on("alpha"), "qcow2")
        self.assertIs(one.placement.mode, spec.Mode.ASK)
        other = dataclasses.replace(one, uuid="")
        self.assertNotEqual(spec.digest(one), spec.digest(other))

    def test_refused(self) -> None:
        """Each rule, by its own words."""
        for old, new, words in (
                ('name = "db1"', 'name = "../x"', "name: '../x'"),
                ('name = "db1"', 'name = "a b"', "name: 'a b'"),
                ('name = "db1"', f'name = "{"a" * 41}"', "40 at most"),
                ('uuid = "3c6f', 'uuid = "3C6F', "no UUID"),
                ("${net.net0.ifname}", "${net.net1.ifname}",
                 "${net.net1.ifname} stands for nothing"),
                ("${disk.vd0.path}", "${disk.vd0.name}",
                 "${disk.vd0.name} stands for nothing"),
                ("${port.vnc.display}", "${port.a b}", "stands for nothing"),
                ("root=$$x", "root=$x", "single '$'"),
                ("${file.kernel}", "/boot/k", "file.kernel: no word"),
                ('"-m", "8192"', '"-incoming", "defer"', "-incoming is the"),
                ('"-m", "8192"', '"-qmp", "stdio"', "-qmp is the agent's"),
                ("size = 107374182400", "size = 0", "size: 0 bytes"),
                ("size = 107374182400", 'size = "1G"', "'1G' is no int"),
                ('format = "qcow2"', 'format = "a/b"', "'a/b' is no such"),
                ("[disk.vd0]", "[disk.vd0]\npath_at.b = 'x'",
                 "'x' is no absolute path"),
                ("[disk.vd0]", "[disk.vd0]\ncolour = 1", "disk.vd0.colour is "
                 "not known"),
                ('sha256 = "0', 'sha256 = "g', "is none"),
                ('class = "gold"', 'class = "iron"', "'iron'"),
                ("[sla]", "[sla", "no TOML")):
            self.assertIn(old, TEXT)
            with self.assertRaises(BadData) as caught:
                spec.loads(TEXT.replace(old, new, 1))
            self.assertIn(words, str(caught.exception), new)


class FillTest(unittest.TestCase):
    """Placeholders."""

    def test_kinds(self) -> None:
        """A comma is doubled only in lists; "$$" is "$"."""
        words = spec.fill(spec.loads(TEXT), PLACE)
        self.assertIn("driver=qcow2,node-name=vd0,file.driver=file,"
                      "file.filename=/srv/a,,b/x.qcow2", words)
        self.assertIn("tap,id=net0,ifname=w0123abcd,script=no", words)
        self.assertIn("/boot/k,1", words)
        self.assertIn("root=$x,y", words)
        self.assertIn("127.0.0.1:7", words)

    def test_json(self) -> None:
        """In JSON it is a string of JSON."""
        path = '/a"b\\c,d'
        one = spec.Spec("a", ("-blockdev", '{"filename": "${disk.d.path}"}'),
                        disk={"d": spec.Disk("raw", 1)})
        words = spec.fill(one, spec.Place("/r", {"d": (path, "raw")}))
        self.assertEqual(json.loads(words[1]), {"filename": path})

    def test_block_device(self) -> None:
        """One below /dev has another protocol."""
        place = spec.Place("/r", {"d": ("/dev/vg/x", "raw")})
        self.assertEqual(spec.value_of("disk.d.protocol", place),
                         "host_device")

    def test_memory(self) -> None:
        """Kinds that are known, and not with memory that is pulled."""
        for good in ("['disk', 'image']", "['none']", "[]"):
            spec.loads(f"{TEXT}\n[move]\nmemory = {good}\n")
        for bad, why in (("['ram']", "'ram' is not known"),
                         ("['disk', 'none']", "stands alone")):
            with self.assertRaisesRegex(BadData, why):
                spec.loads(f"{TEXT}\n[move]\nmemory = {bad}\n")
        pulled = spec.Spec("a", (), placement=spec.Placement(
            postcopy_ram=True))
        spec.check(dataclasses.replace(pulled, move=spec.Move(("none",))))
        with self.assertRaisesRegex(BadData, "leave out one of them"):
            spec.check(dataclasses.replace(pulled, move=spec.Move(("disk",))))

    def test_missing(self) -> None:
        """Nothing is left out in silence."""
        with self.assertRaises(BadData):
            spec.fill(spec.loads(TEXT), spec.Place("/r"))

    def test_command_line(self) -> None:
        """The agent's own is added."""
        line = spec.command_line(spec.loads(TEXT), "/bin/qemu", PLACE, True)
        self.assertEqual(line[:5], ["/bin/qemu", "-name",
                                    "db1,debug-threads=on", "-uuid",
                                    "3c6f0000-1111-2222-3333-444455556666"])
        self.assertEqual(line[-2:], ["-incoming", "defer"])
        self.assertIn("unix:/run/wsm/vm/db1/agent.qmp,server=on,wait=off",
                      line)
        self.assertEqual(spec.ports(spec.loads(TEXT)), ["vnc"])

    @over(lambda st: st.lists(st.text("$${}ab,=- ", min_size=1), max_size=5))
    def test_escape(self, words: Any) -> None:
        """What is escaped comes out as it went in."""
        one = spec.Spec("a", tuple(word for each in words for word in
                                   ("-append", spec.escape(each))))
        self.assertEqual(spec.fill(one, spec.Place("/r"))[1::2], words)
