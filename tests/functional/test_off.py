# SPDX-License-Identifier: GPL-2.0-or-later
"""Without the capability nothing differs; these run with any QEMU."""

from typing import Optional

from dev.rig.basics import require, wait_until
from dev.rig.image import MIB
from dev.rig.relay import BLOCK, MAIN
from dev.rig.scene import Scene, expect_clean
from dev.rig.vm import MachineConfig
from tests.functional.lib import setups
from tests.functional.lib.moves import BUSY_RAM, hold_ram_phase
from tests.functional.lib.registry import add, test

# How the section's name stands in the stream: length, text, instance 0
SECTION = b'\x03wsm\0\0\0\0'


@test(needs_wsm=False)
def guest_checks_itself(scene: Scene) -> None:
    """The guest notices a block that was changed behind its back."""
    source = scene.source(boot=True)
    scene.guest.fill(0, 0, 8 * MIB)
    scene.guest.start(writers=2, readers=1, full=4, part=2, big=1, discard=1,
                      zero=1, flush=50)
    scene.guest.wait_progress(writes=500)
    scene.guest.stop()
    scene.guest.verify()
    scene.guest.fill(0, 0, 8 * MIB)
    scene.guest.command('flush')
    with open(source.images[0].path, 'r+b') as image:
        image.seek(3 * MIB + 512)
        image.write(bytes(512))
    answer = scene.guest.start_command('verify')
    try:
        answer.wait()
    except Exception as err:    # pylint: disable=broad-except
        require('disk 0 sector 6145' in str(err), f'wrong complaint: {err}')
    else:
        require(False, 'the guest did not notice')


@test(needs_wsm=False)
def off_means_off(scene: Scene) -> None:
    """A stock migration over shared storage, with nothing of ours in it."""
    source = scene.source()
    scene.guest.fill(0, 0, 8 * MIB)
    scene.guest.start(writers=1, rate=200, readers=1, rrate=100)
    destination = scene.destination(wsm=False, images=source.images)
    relay = scene.make_relay(destination)
    relay.capture = True
    source.qmp.cmd('migrate', uri=relay.uri)
    source.wait_migration('completed')
    destination.wait_migration('completed')
    destination.wait_running()
    require(relay.count(MAIN) == 1 and relay.count(BLOCK) == 0,
            'a block channel was opened')
    require(not any(SECTION in connection.captured
                    for connection in relay.connections),
            'the stream has a section of ours')
    require(not any('wsm' in name for vm in (source, destination)
                    for name in vm.threads()), 'a thread of ours runs')
    scene.guest.wait_progress(writes=50)
    scene.guest.stop()
    scene.guest.verify()
    expect_clean(source)
    expect_clean(destination)
    require(not destination.all_bitmaps(), 'there is a bitmap')
    source.quit()
    destination.quit()
    require(not list(scene.folder.glob('**/*.wsm*')), 'there is a record')


def off(name: str, summary: str, setup: setups.Setup,
        config: Optional[MachineConfig] = None, late: int = 0,
        postcopy: bool = False) -> None:
    """Add a test of a stock migration that needs several connections.

    With @late the main stream says nothing before there are so many.
    """
    def function(scene: Scene) -> None:
        source = scene.source()
        scene.guest.fill(0, 0, 8 * MIB)
        scene.guest.start(writers=1, rate=200, readers=1, rrate=100,
                          **(BUSY_RAM if postcopy else {}))
        destination = scene.destination('defer', wsm=False,
                                        images=source.images)
        setup(scene, source, destination)
        destination.qmp.cmd('migrate-incoming', uri='tcp:127.0.0.1:0')
        relay = scene.make_relay(destination)
        relay.hold_main = bool(late)
        if postcopy:
            hold_ram_phase(source)
        source.qmp.cmd('migrate', uri=relay.uri)
        if late:
            wait_until(lambda: len(relay.connections) >= late,
                       f'{late} connections')
            relay.hold_main = False
            relay.wait_open(MAIN)[0].resume()
        if postcopy:
            source.wait_migration('active')
            source.qmp.cmd('migrate-start-postcopy')
        source.wait_migration('completed')
        destination.wait_migration('completed')
        destination.wait_running()
        require(relay.count(BLOCK) == 0, 'a block channel was opened')
        scene.guest.wait_progress(writes=50)
        scene.guest.stop()
        scene.guest.verify()
        expect_clean(destination)
        source.quit()
        destination.quit()

    function.__doc__ = summary
    add(name, function, config, needs_wsm=False)


# It opens the channel for preempt at once, and says nothing on it
OLD = MachineConfig(machine='pc-i440fx-7.1')
MULTIFD = setups.multifd(70)
PREEMPT = setups.caps(*setups.PREEMPT)

off('off-multifd', 'Many channels of multifd.', MULTIFD)
off('off-multifd-late', 'The main stream is the last to say something.',
    MULTIFD, late=71)
off('off-multifd-tls', 'Many channels of multifd with TLS.',
    setups.with_tls(MULTIFD))
off('off-preempt', 'A channel for preempt.', PREEMPT, postcopy=True)
off('off-preempt-tls', 'A channel for preempt with TLS.',
    setups.with_tls(PREEMPT), postcopy=True)
off('off-preempt-old', 'A channel for preempt that says nothing at first.',
    PREEMPT, OLD, late=2, postcopy=True)
