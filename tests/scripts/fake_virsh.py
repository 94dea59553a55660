# SPDX-License-Identifier: GPL-2.0-or-later
"""A virsh for tests: two hosts of which a dictionary says all.

"hosts"         for each host ("" is this one, else its URI) a list of
                [pattern, output, error]: the first whose pattern matches the
                words answers
"phases"        what query-wsm says, one after the other; then the move ends
"end"           how: [error of virsh migrate, answers in front of those that
                this host has, the same for the other one]
"abort"         the same if domjobabort comes before
"asked"         how often query-wsm was asked
"ended"         "end" or "abort" when it has
"log"           all calls

As a program it has them in the file $FAKE_VIRSH.
"""

import fcntl
import json
import os
import re
import sys
import time
from typing import Any, Optional

PATIENCE = 60


class Hosts:
    """Both hosts; @state is as above and changes."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state
        state.setdefault("asked", 0)
        state.setdefault("ended", "")
        state.setdefault("log", [])

    def answer(self, uri: str, words: list[str]) -> tuple[str, str]:
        """Return what a command prints, and its error."""
        line = " ".join(words)
        self.state["log"].append(f"{uri}> {line}")
        for pattern, out, error in self.state["hosts"][uri]:
            if re.match(pattern, line):
                return out, error
        if words[0] == "domjobabort":
            self.state["ended"] = "abort"
            return "", ""
        if '"query-wsm"' in line:
            return self.query(), ""
        return "", f"unexpected: {line}"

    def query(self) -> str:
        """Answer query-wsm."""
        phases = self.state["phases"]
        count = self.state["asked"] = self.state["asked"] + 1
        if count >= len(phases):
            self.state["ended"] = "end"
        return json.dumps({"return": phases[min(count, len(phases)) - 1]})

    def end_of_move(self, uri: str) -> str:
        """Change the hosts as the move did; return virsh's error."""
        error, here, there = self.state[self.state["ended"]]
        self.state["hosts"][""] = here + self.state["hosts"][""]
        self.state["hosts"][uri] = there + self.state["hosts"][uri]
        return str(error)


def call(words: list[str]) -> tuple[str, str]:
    """Answer one command; 'migrate' waits until the move ends."""
    words = [word for word in words if word != "-q"]
    uri = ""
    if words[0] == "-c":
        uri, words = words[1], words[2:]
    name = os.environ["FAKE_VIRSH"]
    deadline = time.monotonic() + PATIENCE
    begun = False
    while time.monotonic() < deadline:
        with open(name, "r+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            hosts = Hosts(json.load(file))
            result: Optional[tuple[str, str]] = None
            if words[0] != "migrate":
                result = hosts.answer(uri, words)
            elif hosts.state["ended"]:
                result = "", hosts.end_of_move(words[-1])
            elif not begun:
                hosts.state["log"].append(f"{uri}> {' '.join(words)}")
                begun = True
            file.seek(0)
            json.dump(hosts.state, file)
            file.truncate()
        if result:
            return result
        time.sleep(0.02)
    return "", "nothing ends the move"


def main() -> int:
    """Be virsh."""
    out, error = call(sys.argv[1:])
    print(out)
    print(f"error: {error}" * bool(error), file=sys.stderr)
    return int(bool(error))


if __name__ == "__main__":
    sys.exit(main())
