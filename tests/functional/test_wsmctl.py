# SPDX-License-Identifier: GPL-2.0-or-later
"""Moves by one command: two hosts, an agent on each, wsmctl."""

import json
import os
import re
import signal
import socket
import subprocess

from dev.rig.basics import require, wait_until
from dev.rig.cluster import VM, Cluster
from dev.rig.image import MIB
from dev.rig.qmp import Qmp
from dev.rig.scene import Scene, disk_total, wait_phase
from dev.rig.vm import DiskConfig, MachineConfig, Vm
from tests.functional.lib.moves import (BUSY_RAM, LOAD, fill_half,
                                        hold_ram_phase, release_ram_phase)
from tests.functional.lib.registry import test

CONFIG = MachineConfig((DiskConfig(size=32 * MIB),))
QUIET = {**LOAD, 'rate': 100}


def slowly(cluster: Cluster, phase: str, **load: int) -> Vm:
    """A guest that will stay in @phase when it moves."""
    source = cluster.guest()
    fill_half(cluster.scene)
    cluster.scene.guest.start(**(load or QUIET))
    if phase == 'disk-precopy':
        source.qmp.cmd('wsm-set-options', bandwidth=MIB)
    return source


@test(CONFIG)
def wsmctl_there_and_back(scene: Scene) -> None:
    """A guest started by hand is adopted, moved by one command, and back."""
    with Cluster(scene) as cluster:
        source = slowly(cluster, '')
        plan = cluster.json('migrate', VM, '--dry-run')
        require(plan['to'] == 'beta', f'plan: {plan}')
        require(plan['estimate']['disks']['vd0']['kind'] == 'full',
                f'plan: {plan}')
        require(not cluster.qemu_pid('beta'), 'a dry run starts nothing')
        text = cluster.ctl('migrate', VM)
        require('runs on beta' in text, text)
        source.wait_exit()
        scene.guest.stop()
        cluster.expect_at('beta')
        back = cluster.json('migrate', VM, '--dry-run')['estimate']
        require(back['disks']['vd0']['kind'] == 'sync-point',
                f'the way back: {back}')
        require(back['disks']['vd0']['bytes'] < 8 * MIB, f'way back: {back}')
        scene.guest.start(**QUIET)
        cluster.ctl('migrate', VM, '--to', 'alpha')
        scene.guest.stop()
        cluster.expect_at('alpha')
        results = [move['result'] for move in cluster.json('history')]
        require(results == ['moved', 'moved'], f'history: {results}')


@test(CONFIG, slow=True)
def wsmctl_other_machine(scene: Scene) -> None:
    """Another machine there is refused before a byte is sent."""
    with Cluster(scene) as cluster:
        cluster.guest()
        require('can move' in cluster.ctl('vm', 'check', VM, '--to', 'beta'),
                'the same machine fits')
        path = cluster.spec_path('alpha')
        good = path.read_text('utf-8')
        for old, new, words in (
                ('"-m", "256"', '"-m", "128"', 'memory'),
                ('"-smp", "1"', '"-smp", "2"', 'vCPUs'),
                ('"-cpu", "qemu64"', '"-cpu", "qemu64,-nx"', 'features'),
                # It ends at once, and only its stderr says why
                ('"-cpu", "qemu64"', '"-cpu", "qemu65"', "model 'qemu65'"),
                ('netdev=net,romfile=', 'netdev=net,mac=52:54:00:00:00:09,'
                 'romfile=', 'mac=52:54:00:00:00:09')):
            require(old in good, f'{old} is not in {good}')
            path.write_text(good.replace(old, new), 'utf-8')
            text = cluster.ctl('vm', 'check', VM, '--to', 'beta', status=4)
            require(words in text, f'{new}: {text}')
            require(not list(cluster.leftovers('beta')), 'left at beta')
        text = cluster.ctl('migrate', VM, status=1)
        require('stays on alpha' in text, text)
        path.write_text(good, 'utf-8')
        scene.guest.start(**QUIET)
        cluster.expect_at('alpha')
        require(not list((cluster.folder('beta') / 'images').rglob('*')),
                'a blank image is left')


@test(CONFIG, slow=True)
def wsmctl_interrupted(scene: Scene) -> None:
    """Ctrl-C cancels in good order; the next try goes on where it was."""
    with Cluster(scene) as cluster:
        source = slowly(cluster, 'disk-precopy')
        process = cluster.popen('migrate', VM, '--retries', '0')
        wait_phase(source, 'disk-precopy')
        process.send_signal(signal.SIGINT)
        text = cluster.end(process, 1)
        require('stays on alpha' in text, text)
        require(cluster.moved()['result'] == 'cancelled', 'the journal')
        cluster.expect_at('alpha')
        process = cluster.popen('migrate', VM)
        wait_phase(source, 'disk-precopy')
        rows = cluster.json('status')['moves']
        require([row['vm'] for row in rows] == [VM], f'status: {rows}')
        cluster.ctl('cancel', rows[0]['id'][:8])
        cluster.end(process, 1)
        source.qmp.cmd('wsm-set-options', bandwidth=0)
        cluster.ctl('migrate', VM)
        cluster.expect_at('beta')


@test(CONFIG, slow=True)
def wsmctl_killed(scene: Scene) -> None:
    """wsmctl and both agents are killed: the move goes on and is found."""
    with Cluster(scene) as cluster:
        source = slowly(cluster, '', **QUIET, **BUSY_RAM)
        process = cluster.popen('migrate', VM, '--rate', '48M',
                                '--retries', '0', '--wait')
        source.set_params(downtime_limit=1)
        wait_phase(source, 'ram-precopy')
        process.kill()
        process.communicate()
        for name in list(cluster.agents):
            cluster.stop_agent(name, signal.SIGKILL)
        require(source.alive(), 'the guest needs no agent')
        release_ram_phase(source)
        source.wait_migration('completed')
        for name in cluster.hosts:
            cluster.start_agent(name)
        source.wait_exit()
        cluster.wait_agent('alpha')
        cluster.ctl('recover', VM)
        cluster.expect_at('beta')


@test(CONFIG, slow=True)
def wsmctl_destination_killed(scene: Scene) -> None:
    """The destination dies before the handover: the guest stays."""
    with Cluster(scene) as cluster:
        source = slowly(cluster, 'disk-precopy')
        process = cluster.popen('migrate', VM, '--retries', '0')
        wait_phase(source, 'disk-precopy')
        pid = cluster.qemu_pid('beta')
        assert pid
        os.kill(pid, signal.SIGKILL)
        text = cluster.end(process, 1)
        require('stays on alpha' in text, text)
        cluster.expect_at('alpha')


@test(CONFIG, slow=True)
def wsmctl_source_killed(scene: Scene) -> None:
    """The source dies before the handover: its disks boot again there."""
    with Cluster(scene) as cluster:
        source = slowly(cluster, '', **QUIET, **BUSY_RAM)
        hold_ram_phase(source)
        process = cluster.popen('migrate', VM, '--rate', '48M',
                                '--retries', '0', '--wait')
        wait_phase(source, 'ram-precopy')
        source.kill()
        text = cluster.end(process, 1)
        require('booted again' in text, text)
        require(cluster.owner('alpha') == 'owner', 'alpha owns it')
        require(cluster.qemu_pid('alpha') is not None, 'it runs at alpha')
        require(not list(cluster.leftovers('beta')), 'left at beta')
        scene.guest.wait_ready()


@test(CONFIG, slow=True)
def wsmctl_refused(scene: Scene) -> None:
    """No place, a second move, a strange certificate, another's image."""
    with Cluster(scene) as cluster:
        source = slowly(cluster, 'disk-precopy')
        cluster.ctl('host', 'cordon', 'beta')
        text = cluster.ctl('migrate', VM, status=4)
        require('cordoned' in text, text)
        cluster.ctl('host', 'cordon', 'beta', '--off')
        expect_no_cores(cluster)
        strange = cluster.folder('beta') / f'images/{VM}/vd0.raw'
        strange.parent.mkdir()
        strange.write_bytes(b'somebody needs this')
        text = cluster.ctl('migrate', VM, status=1)
        require('may be overwritten' in text, text)
        require(strange.read_bytes() == b'somebody needs this', 'kept')
        strange.unlink()
        process = cluster.popen('migrate', VM, '--retries', '0')
        wait_phase(source, 'disk-precopy')
        text = cluster.ctl('migrate', VM, status=4)
        require('in move' in text or 'takes in' in text, text)
        expect_fenced(cluster)
        source.qmp.cmd('wsm-set-options', bandwidth=0)
        cluster.end(process)
        cluster.expect_at('beta')
        path = cluster.home / 'cluster.json'
        mine = json.loads(path.read_text('utf-8'))
        path.write_text(json.dumps({**mine, 'instance': 'wsmctl-other'}),
                        'utf-8')
        cluster.ctl('vm', 'stop', VM, '--force')    # nobody acts any more


@test(CONFIG, slow=True)
def wsmctl_verbs(scene: Scene) -> None:
    """A QEMU is adopted by a monitor; what status shows; a damaged file."""
    with Cluster(scene) as cluster:
        cluster.guest(adopt=False)
        adopt = ('vm', 'adopt', 'alpha', VM, '--qmp')
        text = cluster.ctl(*adopt, 'qmp2', status=2)
        require('begins with /' in text, text)
        with socket.socket(socket.AF_UNIX) as stream:
            stream.bind(str(scene.folder / 'no qemu'))
            stream.listen()
            text = cluster.ctl(*adopt, str(scene.folder / 'no qemu'), status=1)
            require('no QEMU' in text, text)
        cluster.ctl(*adopt, str(scene.folder / 'qmp2'))
        cluster.ctl('host', 'cordon', 'beta')
        cluster.ctl('migrate', VM, '--dry-run', status=4)
        cluster.ctl('host', 'uncordon', 'beta')
        seen = cluster.json('status', '--hosts')
        require([host['name'] for host in seen['hosts']] == ['alpha', 'beta']
                and 'vms' not in seen, f'{seen}')
        cluster.ctl('migrate', VM)
        rows = cluster.json('status', '--vms')['vms']
        require([row['host'] for row in rows] == ['beta'], f'{rows}')
        left = cluster.folder('alpha') / f'state/vm/{VM}/left.toml'
        good = left.read_text('utf-8')
        left.write_text(good[:len(good) // 2], 'utf-8')
        text = cluster.ctl('image', 'list', status=1)
        require(f'damaged: alpha: {left}' in text, text)
        cluster.ctl('migrate', VM)      # what is torn is written anew
        require('beta' in cluster.ctl('image', 'list'), 'the copy at beta')
        cluster.expect_at('alpha')


def configure(cluster: Cluster, name: str, text: str) -> None:
    """Give an agent another agent.toml, and start it anew."""
    path = cluster.folder(name) / 'etc/agent.toml'
    path.write_text(text, 'utf-8')
    cluster.stop_agent(name, signal.SIGTERM)
    cluster.start_agent(name)
    cluster.wait_agent(name)


def expect_no_cores(cluster: Cluster) -> None:
    """A host with less CPU free than the guest uses is refused with both."""
    good = (cluster.folder('beta') / 'etc/agent.toml').read_text('utf-8')
    full = good.replace('[root]\n', '[root]\nreserve_cpu = 0.9999\n')
    require(full != good, good)
    configure(cluster, 'beta', full)
    text = cluster.ctl('migrate', VM, '--dry-run', status=4)
    found = re.search(rf'{VM} uses ([\d.]+) cores, beta has ([\d.]+) of 64',
                      text)
    require(found is not None and float(found[1]) > float(found[2]), text)
    configure(cluster, 'beta', good)


def expect_fenced(cluster: Cluster) -> None:
    """An old epoch and another controller are turned away."""
    held = json.loads((cluster.folder('beta') / 'state/controller.json')
                      .read_text('utf-8'))
    mine = json.loads((cluster.home / 'cluster.json').read_text('utf-8'))
    require(held['instance'] == mine['instance'], f'{held} {mine}')
    path = cluster.home / 'cluster.json'
    path.write_text(json.dumps({**mine, 'instance': 'wsmctl-other'}), 'utf-8')
    text = cluster.ctl('vm', 'stop', VM, '--force', status=1)
    require('held by' in text, text)
    path.write_text(json.dumps({**mine, 'name': 'elsewhere'}), 'utf-8')
    text = cluster.ctl('vm', 'list', status=5)
    require('is not the agent' in text, text)
    path.write_text(json.dumps(mine), 'utf-8')


@test(CONFIG, slow=True)
def wsmctl_link_broken(scene: Scene) -> None:
    """The cable is pulled in post-copy: the move waits and goes on."""
    with Cluster(scene) as cluster:
        source = slowly(cluster, '', **LOAD, **BUSY_RAM)
        source.qmp.cmd('wsm-set-options', x_push_delay=100, max_residue=30000)
        hold_ram_phase(source)
        process = cluster.popen('migrate', VM, '--rate', '48M',
                                '--retries', '0', '--wait')
        wait_phase(source, 'ram-precopy')
        release_ram_phase(source)
        wait_phase(source, 'postcopy')
        cluster.link.set_up(False)
        source.qmp.cmd('yank', instances=[{'type': 'migration'}])
        source.wait_migration('postcopy-paused')
        require(process.poll() is None, 'wsmctl waits')
        cluster.link.set_up(True)
        source.qmp.cmd('wsm-set-options', x_push_delay=0)
        cluster.end(process)
        cluster.expect_at('beta')


def in_postcopy(cluster: Cluster) -> tuple[Vm, 'subprocess.Popen[str]']:
    """A guest whose blocks come slowly after the handover, and wsmctl."""
    source = slowly(cluster, '', **LOAD, **BUSY_RAM)
    source.qmp.cmd('wsm-set-options', x_push_delay=1000, max_residue=30000)
    hold_ram_phase(source)
    process = cluster.popen('migrate', VM, '--rate', '48M', '--retries', '0',
                            '--wait')
    wait_phase(source, 'ram-precopy')
    wait_until(lambda: disk_total(source, 'dirty') > MIB, 'dirty blocks')
    release_ram_phase(source)
    wait_phase(source, 'postcopy')
    # GO has arrived; before that the source's end would not be a loss
    wait_until(lambda: cluster.owner('beta') == 'owner', 'it runs at beta')
    return source, process


@test(CONFIG, slow=True)
def wsmctl_source_lost(scene: Scene) -> None:
    """The source dies in post-copy: the guest runs on, a person is told."""
    with Cluster(scene) as cluster:
        source, process = in_postcopy(cluster)
        source.kill()
        text = cluster.end(process, 4)
        require('only in its images' in text, text)
        require(cluster.qemu_pid('beta') is not None, 'it runs at beta')
        require(cluster.owner('beta') == 'owner', 'beta owns it')
        wait_until(lambda: cluster.owner('alpha') == 'gone', 'alpha does not')
        text = cluster.ctl('vm', 'start', VM, status=1)
        require('in move' in text, text)
        cluster.ctl('recover', VM, '--keep', status=4)
        cluster.ctl('recover', VM, '--keep', '--accept-loss')
        require(cluster.moved()['result'] == 'moved', 'the journal')
        require(cluster.qemu_pid('beta') is not None, 'it still runs')


@test(CONFIG, slow=True)
def wsmctl_destination_lost(scene: Scene) -> None:
    """The destination dies in post-copy: nothing is started anywhere."""
    with Cluster(scene) as cluster:
        source, process = in_postcopy(cluster)
        pid = cluster.qemu_pid('beta')
        assert pid
        os.kill(pid, signal.SIGKILL)
        text = cluster.end(process, 4)
        require('memory' in text and 'is lost' in text, text)
        require(source.alive() and source.status() != 'running',
                f'source is {source.status()}')
        require(cluster.qemu_pid('beta') is None, 'nothing runs at beta')
        wait_until(lambda: cluster.owner('alpha') == 'gone', 'alpha does not')
        text = cluster.ctl('recover', VM, '--from-source', status=4)
        require('--accept-loss' in text, text)
        cluster.ctl('recover', VM, '--from-source', '--accept-loss')
        require(cluster.owner('beta') == 'gone', 'beta gave up')
        scene.guest.wait_ready()        # booted anew: its memory is lost
        rows = cluster.json('vm', 'list')['vms']
        require([(row['host'], row['owner'], row['runs']) for row in rows]
                == [('alpha', 'owner', True)], f'vm list: {rows}')
        require(not list(cluster.leftovers('beta')), 'left at beta')


@test(CONFIG, slow=True)
def wsmctl_never_converges(scene: Scene) -> None:
    """Memory that is written too fast: it is said, and the guest stays."""
    with Cluster(scene) as cluster:
        slowly(cluster, '', **QUIET, **BUSY_RAM)
        text = cluster.ctl('migrate', VM, '--rate', '40M', '--downtime', '400',
                           status=1)
        require('does not converge' in text, text)
        require('up to 400 ms' in text, text)
        cluster.expect_at('alpha')


@test(CONFIG, slow=True)
def wsmctl_drain(scene: Scene) -> None:
    """A host is emptied; a VM that has no place is told with numbers."""
    with Cluster(scene) as cluster:
        slowly(cluster, '')
        plan = cluster.json('drain', 'alpha', '--dry-run', status=3)
        require([step['to'] for step in plan['steps']] == ['beta'], f'{plan}')
        watch = cluster.popen('watch', '--every', '0.2')
        text = cluster.ctl('drain', 'alpha', '--deadline', '10min')
        require('alpha is empty' in text, text)
        cluster.expect_at('beta')
        text = cluster.ctl('drain', 'beta', status=4)
        require('alpha is draining' in text, text)
        text = cluster.ctl('drain', 'alpha', '--back')
        require('has its VMs again' in text, text)
        cluster.expect_at('alpha')
        watch.send_signal(signal.SIGINT)
        text = cluster.end(watch)
        for host in ('alpha', 'beta'):
            require(f'{VM} on {host}: runs and owner' in text, text)
        require('alpha -> beta' in text, text)
        done = cluster.json('drain', 'alpha')
        require([move['result'] for move in done['moves']] == ['moved'],
                f'{done}')
        cluster.ctl('drain', 'alpha', '--cancel')
        image = cluster.folder('alpha').parent / 'source-vd0.raw'
        text = cluster.ctl('image', 'list')
        require('handed-over' in text and 'kept for 14' in text, text)
        cluster.ctl('image', 'gc')
        require(image.exists(), 'it is too young')
        cluster.ctl('image', 'gc', '--keep', '0')
        require(not image.exists(), 'it was collected')
        cluster.ctl('vm', 'stop', VM, '--force')
        cluster.ctl('vm', 'start', VM)
        wait_until(lambda: cluster.qemu_pid('beta'), 'it runs again')
        scene.guest.wait_ready()
        cluster.ctl('vm', 'stop', VM, '--force')
        cluster.ctl('vm', 'forget', VM)
        require(not cluster.json('vm', 'list')['vms'], 'it is forgotten')


@test(CONFIG, slow=True)
def wsmctl_grown(scene: Scene) -> None:
    """A disk that was enlarged while its guest ran moves, there and back."""
    with Cluster(scene) as cluster:
        source = slowly(cluster, '')
        cluster.ctl('migrate', VM)
        scene.guest.stop()
        cluster.expect_at('beta')
        source.wait_exit()
        grow(cluster)
        plan = cluster.json('migrate', VM, '--dry-run')['estimate']
        require(plan['disks']['vd0']['kind'] == 'full',
                f'the old copy is too small: {plan}')
        cluster.ctl('migrate', VM)
        require(f'size = {48 * MIB}' in cluster.spec_path('alpha').read_text(
            'utf-8'), 'the description follows')
        image = scene.folder / 'source-vd0.raw'
        require(image.stat().st_size >= 48 * MIB, f'{image} was made anew')
        cluster.expect_at('alpha')


def grow(cluster: Cluster) -> None:
    """Enlarge the disk of the guest at beta, by its second monitor."""
    path = cluster.run_folder('beta') / 'rescue.qmp'
    with socket.socket(socket.AF_UNIX) as stream:
        stream.connect(str(path))
        qmp = Qmp(stream)
        qmp.cmd('block_resize', node_name='node-vd0', size=48 * MIB)
        qmp.close()
