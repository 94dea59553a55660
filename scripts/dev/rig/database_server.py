# SPDX-License-Identifier: GPL-2.0-or-later
"""A PostgreSQL server of Debian's package, in a folder of its own."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Optional, Sequence

from dev.rig.basics import Skip, TestFailure, wait_until

PROGRAMS = Path("/usr/lib/postgresql")
USER = "nobody"                 # it does not run as root
SPEED = ("fsync=off", "shared_buffers=1MB", "max_connections=20",
         "autovacuum=off", "wal_level=minimal", "max_wal_senders=0")


def program(name: str) -> str:
    """Return a program of the newest version; raise Skip."""
    found = sorted(PROGRAMS.glob(f"*/bin/{name}"),
                   key=lambda path: float(path.parts[-3]))
    if not found:
        raise Skip("install postgresql")
    return str(found[-1])


class DatabaseServer:
    """One server; close() ends it and removes its folder."""

    def __init__(self, listen: str = "", prefix: Sequence[str] = ()) -> None:
        self.listen = listen    # an address, "": a socket in its folder only
        self.prefix = prefix    # in front of the server: where it runs
        program("postgres")
        self.folder = Path(tempfile.mkdtemp(prefix="wsm-pg-"))
        self.data = self.folder / "data"
        self._process: Optional["subprocess.Popen[bytes]"] = None
        self._user = USER if os.geteuid() == 0 else None
        try:
            if self._user:
                shutil.chown(self.folder, self._user)
            self._run("initdb", "-D", str(self.data), "-U", "wsm", "-A",
                      "trust", "-E", "UTF8", "--locale=C", "-N")
            (self.data / "pg_hba.conf").write_text(
                "local all all trust\nhost all all all trust\n", "ascii")
            self.start()
        except BaseException:
            self.close()
            raise

    def _run(self, name: str, *words: str) -> None:
        done = subprocess.run([program(name), *words], check=False, text=True,
                              user=self._user, cwd=self.folder,
                              stdin=subprocess.DEVNULL, capture_output=True)
        if done.returncode:
            raise TestFailure(f"{name}: {done.stdout}{done.stderr}")

    def uri(self, database: str = "postgres", host: str = "") -> str:
        """Return how a database of it is named."""
        return (f"postgresql://wsm@{host}/{database}" if host else
                f"postgresql:///{database}?user=wsm&host={self.folder}")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = (*SPEED, f"unix_socket_directories={self.folder}",
                    f"listen_addresses={self.listen}")
        with open(self.folder / "log", "ab") as log:
            # pylint: disable-next=consider-using-with
            self._process = subprocess.Popen(
                [*self.prefix, *self._as_user(), program("postgres"), "-D",
                 str(self.data), *(word for each in settings
                                   for word in ("-c", each))],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=self.folder)
        wait_until(self._ready, "PostgreSQL answers")

    def _as_user(self) -> list[str]:
        """Return what runs a command as somebody else, no longer than us."""
        return ["setpriv", "--pdeathsig=QUIT", *(
            [f"--reuid={self._user}", "--regid=nogroup", "--clear-groups"]
            if self._user else [])]

    def _ready(self) -> bool:
        process = self._process
        if process and process.poll() is not None:
            raise TestFailure("PostgreSQL: " + (self.folder / "log").read_text(
                "utf-8", "replace")[-2000:])
        with contextlib.suppress(OSError):
            return "ready" in (self.data / "postmaster.pid").read_text("utf-8")
        return False

    def signal(self, number: signal.Signals) -> None:
        """Send something to the server and all its processes."""
        if self._process:
            pid = self._process.pid
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text(
                "ascii").split()
            for each in (pid, *map(int, children)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, number)

    def stop(self) -> None:
        """End it at once, as if it had crashed: nobody is told."""
        process, self._process = self._process, None
        if process:
            process.send_signal(signal.SIGQUIT)
            process.wait()
            (self.data / "postmaster.pid").unlink(missing_ok=True)

    def close(self) -> None:
        """End it, and remove its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
