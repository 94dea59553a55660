# SPDX-License-Identifier: GPL-2.0-or-later
"""A cluster with a controller, whose first host is small."""

import contextlib
import json
import re
import signal
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

from dev.rig.basics import Skip, TestFailure, require, wait_until
from dev.rig.cluster import SCRIPTS, Cluster
from dev.rig.host import Host
from dev.rig.scene import Scene
from dev.rig.vm import Vm

# A test does not wait, and on a machine that is full everybody waits
POLICY = """
[calm]
young = 0.0
[hot.limits.wait]
limit = 2.0
hard = 3.0
release = 1.0
"""
HEAT_TIMEOUT = 240              # s until a host was hot for long enough
# Reads keep a CPU busy, and change nothing
BURN = {'writers': 1, 'rate': 50, 'readers': 2, 'rrate': 1000000, 'full': 6,
        'part': 3, 'big': 1, 'flush': 50}


class Watched(Cluster):
    """alpha has one core for its VMs; a controller looks at all of it."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        if subprocess.run(['/usr/bin/python3', '-c',
                           'import prometheus_client'], check=False,
                          capture_output=True).returncode:
            raise Skip('install python3-prometheus-client')
        self.daemons: dict[str, 'subprocess.Popen[bytes]'] = {}

    def __enter__(self) -> 'Watched':
        super().__enter__()
        return self

    def __exit__(self, *args: object) -> None:
        for name in list(self.daemons):
            self.end_controller(name, signal.SIGTERM)
        super().__exit__(*args)

    def add(self, name: str, host: Host) -> None:
        """Only what its VMs use counts: the machine does more."""
        super().add(name, host)
        path = self.folder(name) / 'etc/agent.toml'
        text = path.read_text('utf-8')
        cores = 1.0 if name == 'alpha' else 64.0
        made = re.sub(r'(?m)^cores = .*$', f'cores = {cores}\nat = "vms"',
                      text)
        require(made != text, f'agent.toml: {text}')
        path.write_text(made, 'utf-8')

    def resize(self, name: str, cores: float) -> None:
        """A host has so many cores for its VMs."""
        path = self.folder(name) / 'etc/agent.toml'
        path.write_text(re.sub(r'(?m)^cores = .*$', f'cores = {cores}',
                               path.read_text('utf-8')), 'utf-8')
        self.stop_agent(name, signal.SIGTERM)
        self.start_agent(name)
        self.wait_agent(name)

    def guest(self, adopt: bool = True) -> Vm:
        """A guest to whom nobody has promised that it need not wait."""
        found = super().guest(adopt)
        path = self.spec_path('alpha')
        path.write_text(path.read_text('utf-8')
                        + '\n[sla]\ncpu_wait_max = 1.0\n', 'utf-8')
        return found

    def host_of(self, _name: str) -> Host:
        """Where a controller runs."""
        return self.link.a

    def store(self, _name: str) -> list[str]:
        """Which store it has: those of a cluster share it."""
        return ['--state', str(self.scene.folder / 'store')]

    def add_controller(self, name: str, port: int) -> Path:
        """Add one."""
        folder = self.scene.folder / name
        if folder.exists():
            return folder
        folder.mkdir()
        (folder / 'policy.toml').write_text(POLICY, 'utf-8')
        host = self.host_of(name)
        self.ctl('controller', 'add', name, f'{host.address}:{port}',
                 '--via', ' '.join(host.prefix()), '--program',
                 str(SCRIPTS / 'wsm-controller'), '--folder', str(folder),
                 *self.store(name), '--policy', str(folder / 'policy.toml'))
        path = folder / 'controller.toml'
        path.write_text('settle = 0\n' + path.read_text('utf-8'), 'utf-8')
        return folder

    def start_controller(self, name: str = 'c1', port: int = 7444) -> None:
        """Add one, and start it."""
        folder = self.add_controller(name, port)
        with open(folder / 'log', 'ab') as log:
            # pylint: disable-next=consider-using-with
            self.daemons[name] = subprocess.Popen(
                [*self.host_of(name).prefix(), str(SCRIPTS / 'wsm-controller'),
                 '--config', str(folder / 'controller.toml'), 'run'],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.expect_soon(lambda: self.state(name) not in ('', 'silent'),
                         f'{name} answers')

    def state(self, name: str) -> str:
        """What a controller does."""
        process = self.popen('controller', 'list', '--json')
        text = process.communicate()[0]
        return next((str(row['state']) for row in json.loads(text or '[]')
                     if row['name'] == name), '')

    def set_mode(self, mode: str) -> None:
        """What is done with decisions."""
        self.expect_soon(lambda: self.says(0, 'mode', mode), f'mode {mode}')

    def end_controller(self, name: str, how: signal.Signals) -> None:
        """End it."""
        process = self.daemons.pop(name)
        process.send_signal(how)
        process.wait()

    def journal(self) -> list[dict[str, Any]]:
        """The moves that the controllers' store has."""
        path, = (self.scene.folder / 'store').glob('*.db')
        with contextlib.closing(sqlite3.connect(path)) as database:
            return [json.loads(data) for data, in database.execute(
                'SELECT data FROM moves ORDER BY begun')]

    def plan(self) -> Any:
        """What would be done now, if anything."""
        text = self.popen('plan', '--json').communicate()[0]
        require(bool(text), 'wsmctl plan says nothing')
        return json.loads(text)

    def logs(self) -> str:
        """The end of what everybody has said."""
        return super().logs() + ''.join(
            f'\n--- controller {name}:\n' + (self.scene.folder / name / 'log'
                                              ).read_text()[-3000:]
            for name in self.daemons)

    def expect_soon(self, condition: Any, what: str) -> None:
        """Wait for something that needs some rounds."""
        try:
            wait_until(condition, what, HEAT_TIMEOUT)
        except TestFailure as error:
            raise TestFailure(f'{error}{self.logs()}') from error

    def says(self, status: int, *words: str) -> bool:
        """Return whether wsmctl ends with that status."""
        process = self.popen(*words)
        process.communicate()
        return process.returncode == status
