# SPDX-License-Identifier: GPL-2.0-or-later
"""Controllers on two hosts, their database on a third."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from dev.rig.basics import Skip, require, run
from dev.rig.cluster import SCRIPTS
from dev.rig.database_server import DatabaseServer
from dev.rig.host import Host
from dev.rig.scene import Scene
from tests.functional.lib.daemon import Watched

DEVICE = 'wsmdb'
# What an old leader would do that does not know yet
OLD = """
import sys
from wsm.cli.agents import Agent, AgentSaid
from wsm.cli.home import Home
class Old(Home):
    def epoch_for(self, epoch, holder):
        return int(sys.argv[2])
try:
    Agent(Old(sys.argv[1]), sys.argv[3]).order('/release')
    print('done')
except AgentSaid as error:
    print(error.code, error)
"""


@dataclass(frozen=True)
class Wire:
    """From a host to the database's."""

    host: Host
    netns: str                  # of the database
    number: int

    def device(self) -> str:
        """Its end at the database."""
        return f'{DEVICE}{self.number}'

    def address(self, end: int) -> str:
        """An address; end 1 is the host, 2 the database."""
        return f'10.212.{self.number}.{end}'

    def build(self) -> None:
        """Lay it."""
        temp = f'wd{self.number}x{os.getpid() % 100000}'
        run('ip', 'link', 'add', temp, 'netns', self.host.netns, 'type',
            'veth', 'peer', 'name', self.device(), 'netns', self.netns)
        run('ip', '-n', self.host.netns, 'link', 'set', temp, 'name', DEVICE)
        for netns, device, end in ((self.host.netns, DEVICE, 1),
                                   (self.netns, self.device(), 2)):
            run('ip', '-n', netns, 'addr', 'add', f'{self.address(end)}/24',
                'dev', device)
            run('ip', '-n', netns, 'link', 'set', device, 'up')

    def set_silent(self, silent: bool) -> None:
        """Swallow all packets (True) without a word, or deliver them again."""
        for netns, device, peer in ((self.host.netns, DEVICE, 2),
                                    (self.netns, self.device(), 1)):
            words = ['ip', '-n', netns, 'neigh', 'replace' if silent else
                     'del', self.address(peer), 'dev', device]
            run(*words, *(['lladdr', '02:00:00:00:00:00', 'nud', 'permanent']
                          if silent else []))


class Apart(Watched):
    """c1 at alpha, c2 at beta; db is reached from both."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        if subprocess.run(['/usr/bin/python3', '-c', 'import psycopg'],
                          check=False, capture_output=True).returncode:
            raise Skip('install python3-psycopg')
        self.netns = self.link.a.netns.replace('wsm-a-', 'wsm-d-')
        self.wires = {name: Wire(host, self.netns, number)
                      for number, (name, host) in enumerate(
                          (('c1', self.link.a), ('c2', self.link.b)), 1)}
        run('ip', 'netns', 'add', self.netns)
        try:
            for wire in self.wires.values():
                wire.build()
            self.server = DatabaseServer('*', ['ip', 'netns', 'exec',
                                               self.netns])
        except BaseException:
            run('ip', 'netns', 'del', self.netns)
            raise

    def __enter__(self) -> 'Apart':
        super().__enter__()
        return self

    def __exit__(self, *args: object) -> None:
        super().__exit__(*args)
        self.server.close()
        run('ip', 'netns', 'del', self.netns)

    def host_of(self, name: str) -> Host:
        """Where a controller runs."""
        return self.wires[name].host

    def store(self, name: str) -> list[str]:
        """The database, as it is reached from there."""
        return ['--store', self.server.uri(
            host=self.wires[name].address(2))]

    def start_both(self) -> None:
        """c1 leads and moves by itself; c2 stands by."""
        self.start_controller('c1', 7444)
        self.set_mode('auto')
        self.start_controller('c2', 7445)
        require(self.state('c2') == 'stands by', self.state('c2'))

    def held(self, name: str) -> tuple[int, str]:
        """Whose orders an agent obeys: epoch, instance."""
        path = self.folder(name) / 'state/controller.json'
        found = json.loads(path.read_text('utf-8'))
        return int(found['epoch']), str(found['instance'])

    def order_as(self, name: str, epoch: int, host: str) -> str:
        """Give an agent an order as a controller in some epoch."""
        folder, instance = self.scene.folder / f'old-{name}', self.held(host)[1]
        folder.mkdir()
        for each in ('ca.pem', 'controller.pem', 'controller.key'):
            (folder / each).symlink_to(self.scene.folder / name / each)
        made = json.loads((self.home / 'cluster.json').read_text('utf-8'))
        (folder / 'cluster.json').write_text(
            json.dumps({**made, 'instance': instance}), 'utf-8')
        return run(*self.host_of(name).prefix(), 'env',
                   f'PYTHONPATH={Path(SCRIPTS)}', '/usr/bin/python3', '-c',
                   OLD, str(folder), str(epoch), host)
