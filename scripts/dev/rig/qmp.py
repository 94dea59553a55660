# SPDX-License-Identifier: GPL-2.0-or-later
"""A small synchronous QMP client."""

import json
import socket
import time
from typing import Any, Callable, Optional

from dev.rig.basics import TIMEOUT, TestFailure

Json = dict[str, Any]


class QmpError(Exception):
    """The error that a command returned; str() is QEMU's text."""

    def __init__(self, command: str, error: Json) -> None:
        super().__init__(error['desc'])
        self.command = command
        self.error_class = error['class']


class QmpClosed(Exception):
    """The monitor was closed: QEMU ended."""


class Qmp:
    """One monitor.  Events are kept until somebody asks for them."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = b''
        self._next_id = 0
        self.events: list[Json] = []
        self._receive(time.monotonic() + TIMEOUT)    # the greeting
        self.cmd('qmp_capabilities', enable=['oob'])

    def close(self) -> None:
        self._sock.close()

    def _receive(self, deadline: float) -> Json:
        while b'\n' not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TestFailure('timeout: no message on the QMP monitor')
            self._sock.settimeout(left)
            try:
                data = self._sock.recv(65536)
            except socket.timeout:
                continue
            except ConnectionError as err:
                raise QmpClosed(str(err)) from err
            if not data:
                raise QmpClosed('the monitor was closed')
            self._buffer += data
        line, self._buffer = self._buffer.split(b'\n', 1)
        message: Json = json.loads(line)
        return message

    def _wait_message(self, wanted: Callable[[Json], bool], what: str,
                      timeout: float = TIMEOUT) -> Json:
        deadline = time.monotonic() + timeout
        while True:
            try:
                message = self._receive(deadline)
            except TestFailure as err:
                raise TestFailure(f'timeout: {what}') from err
            if 'event' in message:
                self.events.append(message)
            if wanted(message):
                return message

    def pass_fd(self, name: str, descriptor: int) -> None:
        """Give QEMU a file descriptor, for "fd:NAME"; ours stays open."""
        self._next_id += 1
        request = {'execute': 'getfd', 'id': self._next_id,
                   'arguments': {'fdname': name}}
        socket.send_fds(self._sock, [json.dumps(request).encode() + b'\n'],
                        [descriptor])
        self.finish(self._next_id, 'getfd')

    def start(self, name: str, arguments: Optional[Json] = None,
              oob: bool = False) -> int:
        """Send a command; finish() waits for the reply to it.

        With @oob it does not wait for commands before it, nor for QEMU's
        main thread; few commands can do that.
        """
        self._next_id += 1
        request: Json = {'exec-oob' if oob else 'execute': name,
                         'id': self._next_id}
        if arguments:
            request['arguments'] = arguments
        try:
            self._sock.sendall(json.dumps(request).encode() + b'\n')
        except OSError as err:
            raise QmpClosed(str(err)) from err
        return self._next_id

    def finish(self, number: int, name: str,
               timeout: float = TIMEOUT) -> Any:
        """Wait for the reply to a command that was started."""
        reply = self._wait_message(
            lambda message: bool(message.get('id') == number), name, timeout)
        if 'error' in reply:
            raise QmpError(name, reply['error'])
        return reply['return']

    def cmd(self, name: str, arguments: Optional[Json] = None,
            **kwargs: Any) -> Any:
        """Run a command; keyword a_b is the argument "a-b"."""
        arguments = dict(arguments or {})
        for key, value in kwargs.items():
            arguments[key.replace('_', '-')] = value
        return self.finish(self.start(name, arguments), name)

    def expect_error(self, name: str, *words: str,
                     arguments: Optional[Json] = None, **kwargs: Any) -> str:
        """The command must fail with a text that has all these words."""
        try:
            self.cmd(name, arguments, **kwargs)
        except QmpError as err:
            text = str(err)
            for word in words:
                if word.lower() not in text.lower():
                    raise TestFailure(
                        f'{name}: error lacks "{word}": {text}') from err
            return text
        raise TestFailure(f'{name} succeeded, an error was expected')

    def event(self, name: str,
              predicate: Callable[[Json], object] = lambda data: True) -> Json:
        """Wait for an event; take it and return its data."""
        def wanted(message: Json) -> bool:
            return bool(message.get('event') == name
                        and predicate(message.get('data', {})))

        for message in self.events:
            if wanted(message):
                self.events.remove(message)
                return dict(message.get('data', {}))
        message = self._wait_message(wanted, f'event {name}')
        self.events.remove(message)
        return dict(message.get('data', {}))

    def seen(self, name: str) -> list[Json]:
        """Data of the events of this name that came so far, none taken."""
        self.cmd('query-version')       # read what is waiting
        return [message.get('data', {}) for message in self.events
                if message['event'] == name]

    def hmp(self, line: str) -> str:
        text: str = self.cmd('human-monitor-command', command_line=line)
        return text
