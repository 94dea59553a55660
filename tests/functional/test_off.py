# SPDX-License-Identifier: GPL-2.0-or-later
"""Without the capability nothing differs; these run with any QEMU."""

from dev.rig.basics import require
from dev.rig.image import MIB
from dev.rig.relay import BLOCK, MAIN
from dev.rig.scene import Scene, expect_clean
from tests.functional.lib.registry import test

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
