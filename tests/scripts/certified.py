# SPDX-License-Identifier: GPL-2.0-or-later
"""A cluster with certificates for tests of doors."""

import http.client
import shutil
import tempfile
import unittest
from pathlib import Path
from typing import Optional

from wsm import pki
from wsm.cli.home import Home


class Certified(unittest.TestCase):
    """Has the home of cluster "test", and a folder of certificates."""

    folder: Path
    home: Home

    @classmethod
    def setUpClass(cls) -> None:
        """Make the CA once for all tests of a class."""
        cls.folder = Path(tempfile.mkdtemp(prefix="wsm-door-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.home = Home(str(cls.folder / "home"))
        cls.home.init("test")

    @classmethod
    def certificate(cls, file: str, kind: str, name: str, role: str = "",
                    home: Optional[Home] = None, cluster: str = "test"
                    ) -> None:
        """Make FILE.key and FILE.pem, signed by the CA of @home."""
        key = cls.folder / f"{file}.key"
        pki.new_key(key)
        (cls.folder / f"{file}.pem").write_text(pki.sign(
            (home or cls.home).folder, pki.request(key, name), cluster, kind,
            name, role=role), encoding="ascii")

    def connection(self, file: str, port: int) -> http.client.HTTPSConnection:
        """Return a connection to this host with somebody's certificate."""
        context = pki.client_context(
            self.home.folder / "ca.pem", self.folder / f"{file}.pem",
            self.folder / f"{file}.key")
        made = http.client.HTTPSConnection("127.0.0.1", port, timeout=10,
                                           context=context)
        self.addCleanup(made.close)
        return made
