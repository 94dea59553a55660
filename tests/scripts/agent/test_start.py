# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of how a host joins: as a person types it, with this host."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from dev.common import ROOT
from wsm.agent import vmfind

SCRIPTS = ROOT / "scripts"
PRESENT = shutil.which("openssl") and not subprocess.run(
    ["/usr/bin/python3", "-c", "import aiohttp"], check=False,
    capture_output=True).returncode


def agents(folder: Path) -> list[int]:
    """Return the agents whose files are below a folder."""
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()
            and f"{folder}/etc/agent.toml" in (
                vmfind.read_argv(int(entry)) or ())]


@unittest.skipUnless(PRESENT, "openssl and python3-aiohttp are needed")
class StartTest(unittest.TestCase):
    """init, host add, host list."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()  # pylint: disable=R1732
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.addCleanup(self.end)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"

    def end(self) -> None:
        """End the agent."""
        for pid in agents(self.folder):
            os.kill(pid, signal.SIGTERM)

    def ctl(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Type a command."""
        return subprocess.run(
            [sys.executable, str(SCRIPTS / "wsmctl"), "--home",
             str(self.folder / "home"), *words], check=False, text=True,
            capture_output=True, stdin=subprocess.DEVNULL)

    def add(self, *more: str) -> "subprocess.CompletedProcess[str]":
        """Let this host join."""
        return self.ctl("host", "add", "here", self.address, "--via", "",
                        "--clone", str(ROOT), "--below", str(self.folder),
                        *more)

    def test_joins(self) -> None:
        """The agent runs when it was added, once, with a folder for images."""
        self.assertEqual(self.ctl("init").returncode, 0)
        done = self.add()
        self.assertEqual(done.returncode, 0, done.stderr)
        found = agents(self.folder)
        self.assertEqual(len(found), 1, found)
        self.assertTrue((self.folder / "images").is_dir())
        done = self.ctl("host", "list")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.add().returncode, 2)          # is there
        self.assertEqual(self.add("--replace").returncode, 0)
        self.assertEqual(agents(self.folder), found)

    def test_why_not(self) -> None:
        """An agent that ends at once: its last words are told."""
        self.ctl("init")
        self.address = "192.0.2.1:7443"                     # of nobody here
        done = self.add()
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn("the agent has ended", done.stderr)
        self.assertIn("192.0.2.1", done.stderr)


if __name__ == "__main__":
    unittest.main()
