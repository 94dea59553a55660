# SPDX-License-Identifier: GPL-2.0-or-later
"""Controllers on two hosts, which share a database on a third."""

import signal
import time

from dev.rig.basics import require
from dev.rig.image import MIB
from dev.rig.scene import Scene, query
from dev.rig.vm import DiskConfig, MachineConfig, Vm
from tests.functional.lib.apart import Apart
from tests.functional.lib.daemon import BURN
from tests.functional.lib.moves import fill_half
from tests.functional.lib.registry import test

CONFIG = MachineConfig((DiskConfig(size=32 * MIB),))


def moving(cluster: Apart) -> Vm:
    """A guest that c1 moves, slowly; c2 stands by."""
    source = cluster.guest()
    fill_half(cluster.scene)
    cluster.scene.guest.start(**BURN)
    source.qmp.cmd('wsm-set-options', bandwidth=MIB // 4)
    cluster.start_both()
    cluster.expect_soon(lambda: query(source)['phase'] == 'disk-precopy',
                        'it moves')
    return source


def taken_over(cluster: Apart) -> None:
    """c2 leads in the end."""
    begun = time.time()
    cluster.expect_soon(lambda: cluster.state('c2') == 'leads, mode auto',
                        'the other takes over')
    print(f'# taken over in {time.time() - begun:.0f} s')


def ends_well(cluster: Apart, source: Vm) -> None:
    """The move ends, and c2 knows it."""
    require(query(source)['phase'] == 'disk-precopy', 'the move goes on')
    source.qmp.cmd('wsm-set-options', bandwidth=0)
    source.wait_exit()
    cluster.expect_soon(lambda: cluster.json('report')['moves']
                        == {'moved': 1}, 'the journal is right')
    cluster.ctl('audit', 'verify')
    cluster.expect_at('beta')


@test(CONFIG, slow=True)
def controllers_killed(scene: Scene) -> None:
    """The leader is killed in mid-move; one on another host goes on."""
    with Apart(scene) as cluster:
        source = moving(cluster)
        cluster.end_controller('c1', signal.SIGKILL)
        taken_over(cluster)
        ends_well(cluster, source)


@test(CONFIG, slow=True)
def controllers_cut(scene: Scene) -> None:
    """The leader's way to the database is cut: it stops, another leads."""
    with Apart(scene) as cluster:
        source = moving(cluster)
        cluster.wires['c1'].set_silent(True)
        taken_over(cluster)
        require(cluster.state('c1') == 'no store', cluster.state('c1'))
        ends_well(cluster, source)
        epoch = cluster.held('alpha')[0]
        said = cluster.order_as('c1', epoch - 1, 'alpha')
        require(said.startswith('Fenced'), said)
        cluster.wires['c1'].set_silent(False)
        cluster.expect_soon(lambda: cluster.state('c1') == 'stands by',
                            'it is back')
        cluster.server.stop()
        cluster.expect_soon(lambda: {cluster.state('c1'), cluster.state('c2')}
                            == {'no store'}, 'the database has gone')
        cluster.server.start()
        cluster.expect_soon(
            lambda: sorted((cluster.state('c1'), cluster.state('c2')))
            == ['leads, mode auto', 'stands by'], 'one leads again')
