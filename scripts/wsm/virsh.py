# SPDX-License-Identifier: GPL-2.0-or-later
"""Call virsh."""

import json
import os
import subprocess
from typing import Any, Optional

SECONDS = 120           # for a command that should take a moment


class VirshError(Exception):
    """What virsh, libvirt or QEMU had to say; for users."""


class Virsh:
    """virsh with one connection, to libvirt on one host."""

    def __init__(self, uri: Optional[str]) -> None:
        self.uri = uri
        self.command = ["virsh", "-q", *(["-c", uri] if uri else [])]

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """Start a command; ^C on the terminal does not reach it."""
        try:
            return subprocess.Popen(
                [*self.command, *words], text=True, errors="replace",
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, start_new_session=True,
                env={**os.environ, "LC_ALL": "C"})
        except FileNotFoundError as error:
            raise VirshError("there is no program virsh: install the package "
                             "libvirt-clients") from error

    def run(self, *words: str, seconds: float = SECONDS) -> str:
        """Return what a command prints; raise VirshError if it fails."""
        with self.start(*words) as process:
            try:
                out, err = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                raise VirshError(f"virsh {words[0]} did not end within "
                                 f"{seconds:.0f} s") from None
        if process.returncode:
            raise VirshError(plain_error(err) or f"virsh {words[0]} failed")
        return out.strip()

    def try_run(self, *words: str) -> Optional[str]:
        """Return what a command prints, None if it fails."""
        try:
            return self.run(*words)
        except VirshError:
            return None

    def monitor(self, domain: str, command: str, seconds: float = SECONDS,
                **arguments: Any) -> Any:
        """Return what QEMU's monitor answers; raise VirshError."""
        line = json.dumps({"execute": command, "arguments": arguments})
        text = self.run("qemu-monitor-command", domain, line, seconds=seconds)
        try:
            answer = json.loads(text)
        except ValueError as error:
            raise VirshError(f"{command}: QEMU answers {text!r}") from error
        if "error" in answer:
            raise VirshError(f"{command}: {answer['error'].get('desc')}")
        return answer.get("return")


def plain_error(text: str) -> str:
    """Return virsh's errors in one line, without what they all begin with."""
    lines = [line.strip().removeprefix("error: ")
             for line in text.splitlines() if line.strip()]
    return ": ".join(line.rstrip(":.") for line in lines)
