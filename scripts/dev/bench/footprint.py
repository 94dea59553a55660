# SPDX-License-Identifier: GPL-2.0-or-later
"""What an agent costs a host on which nothing happens."""

import re
import subprocess
import time
from pathlib import Path
from typing import Iterator

from dev.bench.moving import attempt, used_seconds
from dev.bench.report_back import Samples as Rows
from dev.bench.rows import Row, make, number
from dev.bench.sample import Sample, Samples
from dev.bench.settings import Settings
from dev.rig.basics import GUEST_BUILD, wait_until
from dev.rig.cluster import Cluster
from dev.rig.image import MIB
from dev.rig.scene import Scene

KEY = 'idle'
SETTLE = 30.0                   # s, after which all monitors are open
MOST_CPU, MOST_MEMORY = 0.01, 60 * MIB


def resident(pid: int) -> int:
    """Bytes of memory of a process."""
    found = re.search(r'^VmRSS:\s+(\d+) kB',
                      Path(f'/proc/{pid}/status').read_text('utf-8'), re.M)
    return int(found[1]) << 10 if found else 0


def idle_vms(cluster: Cluster, count: int
             ) -> Iterator['subprocess.Popen[bytes]']:
    """Start small QEMUs at alpha that do nothing, each with a monitor."""
    folder = cluster.scene.folder
    for index in range(count):
        path = folder / f'idle{index}.qmp'
        # pylint: disable-next=consider-using-with
        yield subprocess.Popen(
            [*cluster.hosts['alpha'].prefix(), str(cluster.scene.binary),
             '-name', f'idle{index}', '-machine', 'microvm', '-accel', 'tcg',
             '-m', '16', '-nodefaults', '-no-user-config', '-display', 'none',
             '-S', '-qmp', f'unix:{path},server=on,wait=off',
             '-L', str(GUEST_BUILD / 'firmware')],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        wait_until(path.exists, f'idle{index} starts')


def watch_idle(count: int, seconds: float) -> Samples:
    """The agent's CPU time and memory while @count VMs do nothing."""
    sample = Sample('agent', KEY)
    scene = Scene()
    vms: list['subprocess.Popen[bytes]'] = []
    try:
        with Cluster(scene) as cluster:
            pid = cluster.agents['alpha'].pid
            alone = resident(pid)
            for index, vm in enumerate(idle_vms(cluster, count)):
                vms.append(vm)
                cluster.ctl('vm', 'adopt', 'alpha', f'idle{index}')
            time.sleep(SETTLE)
            used, begun = used_seconds(Path(f'/proc/{pid}')), time.monotonic()
            time.sleep(seconds)
            took = time.monotonic() - begun
            sample.numbers = {
                'vms': count, 'seconds': took, 'memory alone': alone,
                'memory': resident(pid), 'cpu': (used_seconds(
                    Path(f'/proc/{pid}')) - used) / took}
    finally:
        for vm in vms:
            vm.kill()
            vm.wait()
        scene.close()
    yield KEY, sample


def section_agent(settings: Settings) -> Samples:
    """An agent whose VMs are idle."""
    count, seconds = (50, 180.0) if settings.verify_all else (3, 5.0)
    yield from attempt(KEY, lambda: watch_idle(count, seconds))


def agent_rows(section: str, rows: Rows, _settings: Settings) -> list[Row]:
    samples = rows.get(KEY, [])
    return [make(section, 'VMs that are idle', samples, number('vms')),
            make(section, 'CPU, of one core', samples, number('cpu'),
                 MOST_CPU, '%'),
            make(section, 'memory', samples, number('memory'), MOST_MEMORY,
                 'MiB'),
            make(section, 'memory without a VM', samples,
                 number('memory alone'), unit='MiB')]


AGENT_SECTIONS = {'agent': section_agent}
AGENT_ROWS = {'agent': agent_rows}
AGENT_TITLES = {'agent': 'An agent whose VMs are idle'}
AGENT_NOTES = {'agent': (
    'The agent looks after small QEMUs (microvm, 16 MiB, paused) that were '
    'adopted; nobody asks it anything for three minutes. It reads every ten '
    'seconds what each VM has written.')}
