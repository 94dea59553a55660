# SPDX-License-Identifier: GPL-2.0-or-later
"""wsmctl and a guest with UEFI, whose firmware writes variables."""

import json
import shutil
import socket
from pathlib import Path

from dev.rig.basics import GUEST_BUILD, Skip, require, run, wait_until
from dev.rig.cluster import Cluster
from dev.rig.guest_image import fetch
from dev.rig.scene import Scene
from tests.functional.lib.registry import test

UEFI = 'uefi1'
PORT = 5901


def firmware(folder: Path) -> tuple[Path, Path]:
    """Debian's OVMF: its code, and variables of one guest."""
    try:
        root = fetch('ovmf', GUEST_BUILD / 'packages') / 'usr/share/OVMF'
    except SystemExit as error:
        raise Skip(f'no ovmf: {error}') from error
    code, variables = folder / 'code.fd', folder / 'vars.fd'
    shutil.copy(root / 'OVMF_CODE_4M.fd', code)
    shutil.copy(root / 'OVMF_VARS_4M.fd', variables)
    return code, variables


def bridges(cluster: Cluster) -> None:
    """A bridge at each host, and at alpha the guest's tap."""
    for host in cluster.hosts.values():
        run('ip', '-n', host.netns, 'link', 'add', 'br0', 'type', 'bridge')
        run('ip', '-n', host.netns, 'link', 'set', 'br0', 'up')
    netns = cluster.hosts['alpha'].netns
    run('ip', '-n', netns, 'tuntap', 'add', 'own0', 'mode', 'tap')
    run('ip', '-n', netns, 'link', 'set', 'own0', 'master', 'br0', 'up')


def boot(cluster: Cluster) -> Path:
    """Start the guest by hand at alpha; return its variables."""
    scene = cluster.scene
    code, variables = firmware(scene.folder)
    run(*cluster.hosts['alpha'].prefix(), str(scene.binary), '-name', UEFI,
        '-L', str(GUEST_BUILD / 'firmware'), '-nodefaults', '-display', 'none',
        '-machine', 'q35', '-accel', scene.config.accel, '-cpu', 'qemu64',
        '-m', '128', '-drive', f'if=pflash,unit=0,format=raw,readonly=on,'
        f'file={code}', '-drive', f'if=pflash,unit=1,format=raw,'
        f'file={variables}', '-netdev', 'tap,id=n0,ifname=own0,script=no,'
        'downscript=no', '-device', 'virtio-net-pci,netdev=n0,romfile=',
        '-serial', f'file:{console(scene)}', '-serial',
        f'tcp:127.0.0.1:{PORT},server=on,wait=off', '-qmp',
        f'unix:{scene.folder}/uefi.qmp,server=on,wait=off', '-pidfile',
        str(cluster.run_folder('alpha').with_name('by-hand') / 'pid'),
        '-daemonize')
    return variables


def console(scene: Scene) -> Path:
    """What the firmware says, wherever it runs."""
    return scene.folder / 'console'


def reset(cluster: Cluster, name: str) -> None:
    """Press the guest's reset button."""
    path = cluster.run_folder(name).with_name(UEFI) / 'rescue.qmp'
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.connect(str(path))
        with monitor.makefile('rw', encoding='utf-8') as stream:
            stream.readline()
            for command in ('qmp_capabilities', 'system_reset'):
                stream.write(json.dumps({'execute': command}) + '\n')
                stream.flush()
                stream.readline()


def booted(scene: Scene, since: int) -> None:
    """Wait until the firmware, done with its variables, tries to boot."""
    wait_until(lambda: b'>>Start' in console(scene).read_bytes()[since:],
               'the firmware boots')


def taps(cluster: Cluster, name: str) -> list[str]:
    """The taps that the agent of a host has made, with their bridge."""
    lines = run('ip', '-n', cluster.hosts[name].netns, '-o', 'link', 'show',
                'master', 'br0').splitlines()
    return [line.split()[1] for line in lines if 'own0' not in line]


@test(slow=True)
def wsmctl_uefi(scene: Scene) -> None:
    """UEFI variables, a tap and a port go there and back."""
    cluster = Cluster(scene, options=['--network', 'lan=br0'])
    bridges(cluster)
    with cluster:
        cluster.run_folder('alpha').with_name('by-hand').mkdir(parents=True)
        variables = boot(cluster)
        fresh = variables.read_bytes()
        booted(scene, 0)
        written = variables.read_bytes()
        require(written != fresh, 'the firmware has written no variable')
        cluster.ctl('vm', 'adopt', 'alpha', UEFI)
        text = cluster.ctl('migrate', UEFI, '--to', 'beta')
        require('runs on beta' in text, text)
        there = cluster.folder('beta') / f'images/{UEFI}/pflash1.raw'
        require(there.read_bytes() == written, 'other variables at beta')
        require(len(taps(cluster, 'beta')) == 1, 'no tap at beta')
        since = console(scene).stat().st_size
        reset(cluster, 'beta')
        booted(scene, since)
        require(there.read_bytes() != written, 'nothing was written at beta')
        written = there.read_bytes()
        cluster.ctl('migrate', UEFI, '--to', 'alpha')
        require(variables.read_bytes() == written, 'what was written at beta')
        wait_until(lambda: not taps(cluster, 'beta'), 'no tap is left at beta')
        require(len(taps(cluster, 'alpha')) == 1, 'no tap at alpha')
        disks = cluster.json('vm', 'show', UEFI)['use']['disks']
        require([disk['id'] for disk in disks] == ['pflash1'], f'{disks}')
