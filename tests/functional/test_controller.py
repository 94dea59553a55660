# SPDX-License-Identifier: GPL-2.0-or-later
"""A controller that moves guests by itself: two hosts, an agent on each."""

import signal
import time

from dev.rig.basics import require
from dev.rig.cluster import VM
from dev.rig.image import MIB
from dev.rig.scene import Scene, query
from dev.rig.vm import DiskConfig, MachineConfig
from tests.functional.lib.daemon import BURN, Watched
from tests.functional.lib.moves import LOAD, fill_half
from tests.functional.lib.registry import test

CONFIG = MachineConfig((DiskConfig(size=32 * MIB),))
QUIET = {**LOAD, 'rate': 20, 'rrate': 5}
CALM = 1800.0                   # s in which nothing is moved again
DUE = 150.0                     # s in which a guest is to be elsewhere
LOOK = 15.0                     # s between two looks meanwhile


def heat(cluster: Watched) -> None:
    """Let the guest keep a CPU busy."""
    cluster.scene.guest.stop()
    cluster.scene.guest.start(**BURN)


@test(CONFIG, slow=True)
def controller_heat(scene: Scene) -> None:
    """A guest computes, its host is too hot: it is moved, with the reason."""
    with Watched(scene) as cluster:
        source = cluster.guest()
        fill_half(scene)
        scene.guest.start(**QUIET)
        cluster.start_controller()
        require(cluster.json('mode')['mode'] == 'observe', 'as installed')
        cluster.expect_soon(lambda: cluster.says(0, 'explain', 'vm', VM),
                            'the guest is known')
        heat(cluster)
        begun = time.time()
        cluster.expect_soon(lambda: cluster.says(3, 'plan'),
                            'a decision')
        require(cluster.owner('alpha') == 'owner', 'it only looks')
        plan = cluster.json('plan', status=3)
        require(plan['steps'][0]['vm'] == VM
                and 'CPU demand' in plan['steps'][0]['why'], f'{plan}')
        decided = min(each['at'] for each in cluster.json(
            'explain', 'vm', VM)['decisions'] if each['steps'])
        print(f'# decided {decided - begun:.0f} s after the load began')
        cluster.ctl('mode', 'auto')
        cluster.expect_soon(lambda: cluster.owner('beta') == 'owner',
                            'it moves')
        source.wait_exit()
        cluster.expect_soon(lambda: not cluster.json('mode')['alarms']
                            and cluster.json('report')['moves'], 'it ends')
        text = cluster.ctl('explain', 'vm', VM)
        require('moved' in text and 'CPU demand' in text, text)
        require(cluster.json('report')['moves'] == {'moved': 1}, 'one move')
        require(not cluster.json('plan')['steps'], 'beta is cool')
        cluster.ctl('audit', 'verify')
        cluster.expect_at('beta')


def not_calm(cluster: Watched) -> str:
    """What is not as it is to be after the only move; "" if all is."""
    moves, plan = cluster.json('report')['moves'], cluster.plan()
    alarms = cluster.json('mode')['alarms']
    if (moves == {'moved': 1} and not alarms and not plan['spots']
            and cluster.owner('beta') == 'owner'):
        return ''
    return f'{moves}, {alarms}, {plan["text"]}'


@test(CONFIG, slow=True)
def controller_calm(scene: Scene) -> None:
    """A hot guest goes to a host that it fills by a third, and stays there."""
    with Watched(scene) as cluster:
        cluster.resize('beta', 4.0)
        source = cluster.guest()
        fill_half(scene)
        scene.guest.start(**QUIET)
        cluster.start_controller()
        cluster.set_mode('auto')
        cluster.expect_soon(lambda: cluster.says(0, 'explain', 'vm', VM),
                            'the guest is known')
        heat(cluster)
        begun = time.time()
        cluster.expect_soon(lambda: cluster.owner('beta') == 'owner',
                            'it moves')
        source.wait_exit()
        cluster.expect_soon(lambda: not not_calm(cluster), 'it is calm')
        cool = time.time() - begun
        decided = min(each['at'] for each in cluster.json(
            'explain', 'vm', VM)['decisions'] if each['steps']) - begun
        print(f'# decided {decided:.0f} s, cool {cool:.0f} s after the load '
              f'began; {cluster.json("report")["seconds"]["median"]} of the '
              'seconds that were expected')
        looks, end = 0, time.monotonic() + CALM
        while time.monotonic() < end:
            wrong = not_calm(cluster)
            require(not wrong, f'after {looks} looks: {wrong}')
            looks += 1
            time.sleep(LOOK)
        print(f'# nothing moves in {CALM / 60:.0f} minutes, {looks} looks; '
              + cluster.json('explain', 'host', 'beta')['lines'][0])
        cluster.expect_at('beta')


@test(CONFIG, slow=True)
def controller_deadline(scene: Scene) -> None:
    """A guest is to be elsewhere by a time: the controller begins it, late."""
    with Watched(scene) as cluster:
        source = cluster.guest()
        fill_half(scene)
        scene.guest.start(**QUIET)
        cluster.start_controller()
        cluster.set_mode('ask')
        cluster.expect_soon(lambda: cluster.says(0, 'explain', 'vm', VM),
                            'the guest is known')
        begun = time.time()
        errand = cluster.json('migrate', VM, '--deadline', f'{DUE:.0f}',
                              '--by-controller')
        require(errand['begins'] > begun + 10, f'at once: {errand}')
        require(not cluster.json('report')['moves'], 'it waits')
        cluster.expect_soon(lambda: 'round trip' in cluster.ctl(
            'explain', 'host', 'alpha'), 'the way is measured')
        print('# ' + next(line for line in cluster.json(
            'explain', 'host', 'alpha')['lines'] if 'round trip' in line))
        cluster.expect_soon(lambda: cluster.owner('beta') == 'owner',
                            'it moves')
        source.wait_exit()
        cluster.expect_soon(lambda: cluster.json('report')['moves']
                            == {'moved': 1}, 'it ends')
        move = cluster.journal()[-1]
        print(f'# begun {move["begun"] - begun:.0f} s after it was asked, '
              f'ended {move["due"] - move["ended"]:.1f} s before it was due; '
              f'{move["seconds"]:.0f} s for {move["expected_seconds"]:.0f}')
        require(not cluster.plan()['errands'], 'it is done')
        cluster.expect_at('beta')


@test(CONFIG, slow=True)
def controller_killed(scene: Scene) -> None:
    """Two on one store; one is killed in mid-move, the other goes on."""
    with Watched(scene) as cluster:
        source = cluster.guest()
        fill_half(scene)
        scene.guest.start(**BURN)
        source.qmp.cmd('wsm-set-options', bandwidth=MIB)
        cluster.start_controller('c1', 7444)
        cluster.set_mode('auto')
        cluster.start_controller('c2', 7445)
        require(cluster.state('c2') == 'stands by', cluster.state('c2'))
        cluster.expect_soon(lambda: query(source)['phase']
                            == 'disk-precopy', 'it moves')
        cluster.end_controller('c1', signal.SIGKILL)
        begun = time.time()
        cluster.expect_soon(lambda: cluster.state('c2') == 'leads, mode auto',
                            'the other takes over')
        print(f'# taken over {time.time() - begun:.0f} s after its end')
        require(query(source)['phase'] == 'disk-precopy', 'the move goes on')
        cluster.end_controller('c2', signal.SIGKILL)
        source.qmp.cmd('wsm-set-options', bandwidth=0)
        source.wait_exit()
        require(cluster.owner('beta') == 'owner', 'agents finish alone')
        begun = time.time()
        cluster.start_controller('c1')
        cluster.expect_soon(lambda: cluster.json('report')['moves']
                            == {'moved': 1}, 'the journal is right')
        print(f'# right {time.time() - begun:.0f} s after its start')
        cluster.ctl('audit', 'verify')
        cluster.expect_at('beta')
