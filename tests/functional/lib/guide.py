# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands that docs/user-guide.md tells its reader to type.

A line with "$" goes to a shell and "->" to the monitor of the QEMU on that
host; what follows in the same block, "<-" or plain lines, is the answer.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from dev.common import ROOT
from dev.rig.qmp import Json

TEXT = ROOT / 'docs/user-guide.md'
HEADING = re.compile(r'#+ (.*)')
SHELL = re.compile(r'(\w*)\$ ')
HOST = re.compile(r'\b(source|alpha|destination|beta)\b')
HOSTS = {'source': 'alpha', 'alpha': 'alpha', 'destination': 'beta',
         'beta': 'beta', '': 'alpha'}


@dataclass
class Command:
    """Something to type, and the answer that the guide shows."""
    host: str
    monitor: bool
    text: str
    answer: list[str] = field(default_factory=list)

    def complete(self) -> bool:
        if not self.monitor:
            return not self.text.endswith('\\')
        try:
            return bool(self.json())
        except json.JSONDecodeError:
            return False

    def json(self) -> Json:
        command: Json = json.loads(self.text)
        return command

    def shown(self) -> Optional[Json]:
        """What the monitor answers according to the guide."""
        text = '\n'.join(self.answer)
        if not text.startswith('<-'):
            return None
        answer: Json = json.loads(text[2:])
        return answer


class Reader:
    """Reads the guide line by line."""

    def __init__(self) -> None:
        self.sections: dict[str, list[Command]] = {}
        self._found: list[Command] = []
        self._host = 'alpha'
        self._paragraph: list[str] = []     # before the block
        self._ended = True                  # that paragraph is
        self._last: Optional[Command] = None

    def line(self, line: str) -> None:
        if found := HEADING.match(line):
            self._found = self.sections.setdefault(found.group(1), [])
            self._host = 'alpha'
        if line.startswith('    '):
            self._block(line[4:])
            return
        self._last = None
        if not line.strip():
            self._ended = True
            return
        if self._ended:
            self._paragraph = []
        self._ended = False
        self._paragraph.append(line)

    def _block(self, line: str) -> None:
        text = line.strip()
        if shell := SHELL.match(text):
            self._host = HOSTS[shell.group(1)]
            self._add(Command(self._host, False, text[shell.end():]))
        elif text.startswith('->'):
            self._turn_to_host()
            self._add(Command(self._host, True, text[2:].strip()))
        elif self._last and not self._last.complete():
            self._last.text += '\n' + line
        elif self._last:
            self._last.answer.append(text)
        self._paragraph = []

    def _add(self, command: Command) -> None:
        self._found.append(command)
        self._last = command

    def _turn_to_host(self) -> None:
        """The host that the sentence before the block names first, if any."""
        text = ' '.join(self._paragraph).strip()
        sentence = re.split(r'\.\s', text)[-1]
        if named := HOST.search(sentence.lower()):
            self._host = HOSTS[named.group(1)]


def read(path: Path = TEXT) -> dict[str, list[Command]]:
    """All commands, by the heading under which they stand."""
    reader = Reader()
    for line in path.read_text(encoding='utf-8').splitlines():
        reader.line(line)
    return {title: commands for title, commands in reader.sections.items()
            if commands}
