# SPDX-License-Identifier: GPL-2.0-or-later
"""A cluster with a controller, whose first host is small."""

import re
import signal
import subprocess
from typing import Any, Optional

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
        self.process: Optional['subprocess.Popen[bytes]'] = None

    def __enter__(self) -> 'Watched':
        super().__enter__()
        return self

    def __exit__(self, *args: object) -> None:
        self.end_controller(signal.SIGTERM)
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

    def guest(self, adopt: bool = True) -> Vm:
        """A guest to whom nobody has promised that it need not wait."""
        found = super().guest(adopt)
        path = self.spec_path('alpha')
        path.write_text(path.read_text('utf-8')
                        + '\n[sla]\ncpu_wait_max = 1.0\n', 'utf-8')
        return found

    def start_controller(self, mode: str = 'auto') -> None:
        """Add one, start it, and set its mode."""
        folder = self.scene.folder / 'controller'
        if not folder.exists():
            folder.mkdir()
            (folder / 'policy.toml').write_text(POLICY, 'utf-8')
            self.ctl('controller', 'add', 'c1', f'{self.link.a.address}:7444',
                     '--via', ' '.join(self.link.a.prefix()), '--program',
                     str(SCRIPTS / 'wsm-controller'), '--folder',
                     str(folder), '--state', str(folder / 'state'),
                     '--policy', str(folder / 'policy.toml'))
            path = folder / 'controller.toml'
            path.write_text('settle = 0\n' + path.read_text('utf-8'), 'utf-8')
        with open(folder / 'log', 'ab') as log:
            # pylint: disable-next=consider-using-with
            self.process = subprocess.Popen(
                [*self.link.a.prefix(), str(SCRIPTS / 'wsm-controller'),
                 '--config', str(folder / 'controller.toml'), 'run'],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.expect_soon(lambda: self.says(0, 'mode', mode),
                         'the controller answers')

    def says(self, status: int, *words: str) -> bool:
        """Return whether wsmctl ends with that status."""
        process = self.popen(*words)
        process.communicate()
        return process.returncode == status

    def end_controller(self, how: signal.Signals) -> None:
        """End it."""
        process, self.process = self.process, None
        if process:
            process.send_signal(how)
            process.wait()

    def logs(self) -> str:
        """The end of what everybody has said."""
        path = self.scene.folder / 'controller/log'
        return super().logs() + ('\n--- controller:\n' + path.read_text(
            'utf-8', 'replace')[-3000:] if path.exists() else '')

    def expect_soon(self, condition: Any, what: str) -> None:
        """Wait for something that needs some rounds."""
        try:
            wait_until(condition, what, HEAT_TIMEOUT)
        except TestFailure as error:
            raise TestFailure(f'{error}{self.logs()}') from error
