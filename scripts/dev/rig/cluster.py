# SPDX-License-Identifier: GPL-2.0-or-later
"""Two hosts with an agent each, and wsmctl: as users have them."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence

from dev.common import ROOT
from dev.rig.basics import (Skip, TestFailure, require, run, tool, wait_until)
from dev.rig.host import Host
from dev.rig.scene import Scene, load_state, template
from dev.rig.vm import Vm
from wsm.agent import vmfind

SCRIPTS = ROOT / 'scripts'
VM = 'source'                   # as Scene names its first QEMU
NAMES = ('alpha', 'beta')


class Cluster:
    """alpha and beta; use as a context."""

    devices: Sequence[str] = ()     # options of the guest's QEMU

    def __init__(self, scene: Scene, mbit: int = 0,
                 options: Sequence[str] = ()) -> None:
        if not shutil.which('python3', path='/usr/bin') or subprocess.run(
                ['/usr/bin/python3', '-c', 'import aiohttp'], check=False,
                capture_output=True).returncode:
            raise Skip('install python3-aiohttp')
        self.scene = scene
        self.mbit = mbit            # as agent.toml has it; 0: not said
        self.options = options      # of 'host add'
        self.link = scene.make_link()
        self.hosts = dict(zip(NAMES, (self.link.a, self.link.b)))
        self.home = scene.folder / 'home'
        self.agents: dict[str, 'subprocess.Popen[bytes]'] = {}

    def folder(self, name: str) -> Path:
        """All files of a host."""
        return self.scene.folder / name

    def run_folder(self, name: str) -> Path:
        """The VM's sockets at a host."""
        return self.folder(name) / 'run/vm' / VM

    def __enter__(self) -> 'Cluster':
        for name in NAMES:
            (self.folder(name) / 'images').mkdir(parents=True)
        self.join()
        for name in NAMES:
            self.start_agent(name)
        self.wait_agent(*NAMES)
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self.agents):
            self.stop_agent(name, signal.SIGTERM)
        for name in NAMES:
            for path in (self.folder(name) / 'run/vm').glob('*/pid'):
                with contextlib.suppress(OSError, ValueError):
                    os.kill(int(path.read_text('ascii')), signal.SIGKILL)

    def join(self) -> None:
        """Make the cluster of both hosts."""
        self.ctl('init', '--cluster', 'test')
        for name, host in self.hosts.items():
            self.add(name, host)

    def add(self, name: str, host: Host) -> None:
        """wsmctl host add."""
        folder = self.folder(name)
        self.ctl('host', 'add', name, host.address, '--via',
                 ' '.join(host.prefix()), '--agent', str(SCRIPTS / 'wsm-agent'),
                 '--qemu', str(self.program(name)), '--qemu-img',
                 tool('qemu-img'), '--pool', str(folder / 'images'),
                 '--reserve', '0', '--folder', str(folder / 'etc'), '--state',
                 str(folder / 'state'), '--run', str(folder / 'run'),
                 '--cores', '64', '--mbit', str(self.mbit), '--no-start',
                 *self.options)

    def program(self, _name: str) -> Path:
        """QEMU at a host."""
        return self.scene.binary

    # Agents

    def start_agent(self, name: str) -> None:
        """Start an agent."""
        with open(self.folder(name) / 'agent.log', 'ab') as log:
            # pylint: disable-next=consider-using-with
            self.agents[name] = subprocess.Popen(
                [*self.hosts[name].prefix(), str(SCRIPTS / 'wsm-agent'),
                 '--config', str(self.folder(name) / 'etc/agent.toml'), 'run'],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait_agent(self, *names: str) -> None:
        """Wait until agents answer."""
        def listen() -> bool:
            for name in names:
                require(self.agents[name].poll() is None,
                        f'agent of {name}: {self.log(name)}')
            done = self.popen('host', 'list', '--json')
            text = done.communicate()[0]
            found = {host['name'] for host in json.loads(text or '[]')
                     if host['state'] != 'unknown'}
            return found >= set(names)

        wait_until(listen, f'agents of {", ".join(names)} answer')

    def stop_agent(self, name: str, how: signal.Signals) -> None:
        """End an agent."""
        agent = self.agents.pop(name)
        agent.send_signal(how)
        agent.wait()

    def log(self, name: str) -> str:
        """What an agent has said."""
        return (self.folder(name) / 'agent.log').read_text('utf-8', 'replace')

    # wsmctl

    def popen(self, *words: str,
              stderr: int = subprocess.PIPE) -> 'subprocess.Popen[str]':
        """Start wsmctl."""
        return subprocess.Popen(
            [*self.link.a.prefix(), sys.executable, str(SCRIPTS / 'wsmctl'),
             '--home', str(self.home), *words], text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr,
            start_new_session=True)

    def ctl(self, *words: str, status: int = 0) -> str:
        """Run wsmctl; return all that it says."""
        process = self.popen(*words)
        return self.end(process, status, ' '.join(words))

    def end(self, process: 'subprocess.Popen[str]', status: int = 0,
            what: str = 'wsmctl') -> str:
        """Wait for a wsmctl that was started."""
        try:
            out, err = process.communicate(timeout=120)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise TestFailure(f'timeout: {what}: {self.logs()}') from error
        require(process.returncode == status,
                f'wsmctl {what}: status {process.returncode} instead of '
                f'{status}: {out}{err}{self.logs()}')
        return out + err

    def json(self, *words: str, status: int = 0) -> Any:
        """Run wsmctl and return its JSON."""
        process = self.popen(*words, '--json')
        out, err = process.communicate(timeout=120)
        require(process.returncode == status,
                f'wsmctl {words}: status {process.returncode}: {out}{err}')
        return json.loads(out)

    def logs(self) -> str:
        """The end of what both agents have said."""
        return ''.join(f'\n--- agent of {name}:\n{self.log(name)[-3000:]}'
                       for name in NAMES
                       if (self.folder(name) / 'agent.log').exists())

    # The VM

    def guest(self, adopt: bool = True) -> Vm:
        """A guest at alpha, started by hand with a monitor for the agent."""
        scene = self.scene
        config = replace(scene.config, extra=(
            *scene.config.extra, *self.devices, '-qmp',
            f'unix:{scene.folder / "qmp2"},server=on,wait=off'))
        vm = scene.destination(uri='defer', wsm=False, config=config, name=VM)
        load_state(vm, template(scene.config))
        scene.guest.wait_ready()
        vm.set_params(downtime_limit=2000)
        # Where it will be heard when it is elsewhere
        for name in NAMES:
            scene.guest.attach(self.run_folder(name) / 'net.sock')
        if adopt:
            self.ctl('vm', 'adopt', 'alpha', VM)
        return vm

    def qemu_pid(self, name: str) -> Optional[int]:
        """The VM's QEMU that the agent of a host has started."""
        try:
            pid = int((self.run_folder(name) / 'pid').read_text('ascii'))
        except (OSError, ValueError):
            return None
        return pid if vmfind.process(pid) else None     # no zombie

    def owner(self, name: str) -> str:
        """What owner.json says at a host."""
        path = self.folder(name) / 'state/vm' / VM / 'owner.json'
        if not path.exists():
            return 'none'
        return str(json.loads(path.read_text('utf-8')).get('state', 'none'))

    def spec_path(self, name: str) -> Path:
        """The VM's description at a host."""
        return self.folder(name) / f'etc/vms/{VM}.toml'

    def moved(self) -> dict[str, Any]:
        """The last move of the journal."""
        found: dict[str, Any] = self.json('history')[-1]
        return found

    def leftovers(self, name: str) -> Iterator[str]:
        """What a move has left at a host where the VM is not."""
        if self.qemu_pid(name):
            yield 'a QEMU'
        for path in (self.folder(name) / 'run').rglob('*'):
            if path.name != 'qemu.log' and not path.is_dir():
                yield str(path)
        links = run('ip', '-n', self.hosts[name].netns, '-br', 'link')
        yield from (line.split()[0] for line in links.splitlines()
                    if line.startswith('w') and not line.startswith('wsm'))

    def expect_at(self, name: str) -> None:
        """The guest lives at a host and there only, all blocks are right."""
        other = next(each for each in NAMES if each != name)
        self.scene.guest.wait_progress(beats=10)
        self.scene.guest.stop()
        self.scene.guest.verify()
        with contextlib.suppress(TestFailure):
            wait_until(lambda: not list(self.leftovers(other)), '', 20)
        require(not list(self.leftovers(other)),
                f'left at {other}: {list(self.leftovers(other))}')
        require(self.owner(name) == 'owner', f'{name} is {self.owner(name)}')
        require(self.owner(other) in ('gone', 'none'),
                f'{other} is {self.owner(other)}')
        rows = self.json('vm', 'list')['vms']
        require([(row['host'], row['runs']) for row in rows]
                == [(name, True)], f'vm list: {rows}')
