# SPDX-License-Identifier: GPL-2.0-or-later
"""A source that is killed in post-copy: wsm-serve gives the rest."""

import json
import os
import shutil
import time
import uuid
from dataclasses import replace
from typing import Any

from wsm.record import encode_record

from dev.rig.basics import require, run, tool, wait_until
from dev.rig.image import MIB, Image
from dev.rig.scene import (Scene, begin, disk_total, finish, query, wait_phase,
                           wait_total)
from dev.rig.vm import DiskConfig, MachineConfig
from tests.functional.lib.back import (BOTH, expect_kinds, record, states)
from tests.functional.lib.moves import (LOAD, end, expect_moved, loaded_source,
                                        move, start_and_wait)
from tests.functional.lib.registry import add, test
from tests.functional.lib.rescue import (Killed, Serving, expect_refused,
                                         expect_rescued, serve, source_killed,
                                         wait_missing)
from tests.functional.lib.setups import (Setup, caps, multifd, nothing,
                                         with_tls)
from tests.functional.lib.tls import NAME

RAW = MachineConfig((DiskConfig('vd0'),))
QCOW2 = MachineConfig((DiskConfig('vd0', fmt='qcow2'),))
TWO_RAW = MachineConfig((DiskConfig('vd0'), DiskConfig('vd1')))
HANDED_OVER = 'the destination has everything, for good'
# Longer than a guest on a busy host is ever silent
LONG_GAP = 20.0


def word(image: Image) -> str:
    """The state in the record of an image."""
    text = record(image).read_text('utf-8').split('\n', 1)[1]
    return str(json.loads(text)['state'])


def waiting_reader(scene: Scene, killed: Killed) -> None:
    """The guest lives on, and reads what nobody can send now."""
    scene.guest.wait_progress(beats=10)
    scene.guest.start(readers=1)
    wait_total(killed.destination, 'waiting-reads')


def killed_and_served(setup: Setup = nothing, **migration: Any) -> Any:
    def function(scene: Scene) -> None:
        killed = source_killed(scene, setup, **migration)
        begun = time.time()
        waiting_reader(scene, killed)
        tls = (['--tls-creds', str(scene.folder / 'tls'),
                '--tls-hostname', NAME]
               if (scene.folder / 'tls').exists() else [])
        said = serve(killed.source.images, *tls)
        require(HANDED_OVER in said, said)
        require('trying again' not in said, said)
        expect_rescued(scene, killed.destination, killed.source)
        require(scene.guest.longest_gap(begun) < LONG_GAP, 'the guest stopped')
        for image in killed.source.images:
            require(word(image) == 'handed-over', word(image))
        if tls:
            killed.destination.set_params(tls_creds='')
            killed.destination.set_caps('multifd', on=False)
        back = scene.destination(images=killed.source.images,
                                 name='destination-2')
        move(scene, killed.destination, back)
        expect_kinds(killed.destination, ['content'] * len(back.images))
        end(killed.destination, back)
    return function


def add_served(name: str, config: MachineConfig, setup: Setup = nothing,
               **migration: Any) -> None:
    function = killed_and_served(setup, **migration)
    function.__doc__ = f'The source is killed and its image served: {name}.'
    add(f'served-{name}', function, config)


add_served('raw', RAW)
add_served('qcow2', QCOW2)
add_served('two-disks', BOTH)
add_served('same-size', TWO_RAW)
add_served('coarse', BOTH, granularity=1 << 20, channels=16)
add_served('one-channel', RAW, granularity=65536, channels=1)
add_served('tls', BOTH, with_tls(nothing))
add_served('tls-multifd', RAW, with_tls(multifd()))


@test(BOTH)
def served_and_moved_on(scene: Scene) -> None:
    """The destination is a host like any other afterwards."""
    killed = source_killed(scene)
    serve(killed.source.images)
    expect_rescued(scene, killed.destination)
    scene.guest.start(**LOAD)
    third = scene.destination(name='destination-3')
    move(scene, killed.destination, third)
    end(killed.destination, third)


@test(BOTH)
def server_killed(scene: Scene) -> None:
    """The server dies, too, twice; a third one ends it."""
    killed = source_killed(scene)
    for _ in range(2):
        missing = disk_total(killed.destination, 'missing')
        require(missing > 0, 'it had everything already')
        # The relay lets little through at a time
        with Serving(killed.source.images) as serving:
            wait_missing(killed.destination, missing)
            serving.kill()
        require(word(killed.source.images[0]) == 'leaving', 'the record')
    serve(killed.source.images)
    expect_rescued(scene, killed.destination, killed.source)


@test(BOTH)
def served_over_a_bad_link(scene: Scene) -> None:
    """The link breaks again and again while it is served."""
    killed = source_killed(scene)
    waiting_reader(scene, killed)
    with Serving(killed.source.images) as serving:
        cuts = 0
        while serving.process.poll() is None:
            time.sleep(0.02)
            if cuts < 10 and killed.relay.connections:
                killed.relay.cut_all()
                cuts += 1
        serving.wait(0)
    require(cuts == 10, f'{cuts} cuts')
    expect_rescued(scene, killed.destination)


@test(RAW)
def server_waits_for_the_link(scene: Scene) -> None:
    """The destination cannot be reached for a while, or never."""
    killed = source_killed(scene)
    port = killed.destination.listen_port()
    killed.relay.refusing = True
    with Serving(killed.source.images, '--timeout', '1') as serving:
        said = serving.wait(1)
        require('no connection to' in said, said)
    serve(killed.source.images, '--to', f'tcp:localhost:{port}')
    expect_rescued(scene, killed.destination)


@test(RAW)
def odd_names(scene: Scene) -> None:
    """Names with spaces, colons, commas, and of another script."""
    scene.image_folder = scene.folder / "a b:c,d='e' \u00e9"
    scene.image_folder.mkdir()
    scene.config = BOTH
    killed = source_killed(scene)
    serve(killed.source.images)
    expect_rescued(scene, killed.destination)


@test(RAW)
def unix_destination(scene: Scene) -> None:
    """Over a UNIX socket, under which the record knows it."""
    source = loaded_source(scene, **{**LOAD, 'rate': 0})
    destination = scene.destination('defer')
    uri = f'unix:{scene.folder}/in coming'
    destination.qmp.cmd('migrate-incoming', uri=uri)
    begin(source, uri, x_push_delay=200, max_residue=30000)
    wait_phase(destination, 'postcopy')
    source.kill()
    destination.wait_migration('postcopy-paused')
    serve(source.images)
    expect_rescued(scene, destination)


@test(BOTH)
def served_without_memory(scene: Scene) -> None:
    """With postcopy-ram all disks are there, and it says what is not known."""
    killed = source_killed(scene, caps('postcopy-ram'))
    said = serve(killed.source.images)
    require(HANDED_OVER in said, said)
    destination = killed.destination
    wait_until(lambda: set(states(destination)) == {'current'},
               'the images are complete')
    wait_until(lambda: 'pages of the guest\'s memory may be missing'
               in query(destination).get('error', ''), 'it says so')
    require(destination.qmp.cmd('query-migrate')['status'] ==
            'postcopy-paused', 'memory is not known to be there')


# Refused

@test(RAW)
def source_image_changed(scene: Scene) -> None:
    """Somebody has written to the image, or put another one there."""
    killed = source_killed(scene, stamped=True)
    image = killed.source.images[0]
    before = image.path.stat()
    os.utime(image.path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    expect_refused(killed.source.images, 'its mtime was')
    # As after a power cut
    os.utime(image.path, ns=(before.st_atime_ns, before.st_mtime_ns - 1))
    copy = image.path.with_suffix('.copy')
    shutil.copy2(image.path, copy)
    os.replace(copy, image.path)
    expect_refused(killed.source.images, 'its inode was')
    require(disk_total(killed.destination, 'missing') > 0, 'it was served')
    serve(killed.source.images, '--changed-ok')
    expect_rescued(scene, killed.destination, killed.source)


@test(BOTH)
def living_source(scene: Scene) -> None:
    """A source that lives, in post-copy or before it, has its images."""
    source = loaded_source(scene)
    destination = scene.destination()
    begin(source, scene.uri(destination), x_push_delay=200, max_residue=30000)
    wait_phase(destination, 'postcopy')
    wait_until(lambda: word(source.images[1]) == 'leaving', 'the record')
    expect_refused(source.images, 'another process has it open')
    source.qmp.cmd('wsm-set-options', x_push_delay=0)
    finish(source, destination)
    expect_moved(scene, source, destination)
    expect_refused(source.images, 'the destination has everything')
    end(source, destination)


@test(BOTH)
def second_server(scene: Scene) -> None:
    """Two servers of one image: the second is refused, the first goes on."""
    killed = source_killed(scene)
    killed.relay.hold_at(8)
    with Serving(killed.source.images) as serving:
        killed.relay.wait_held()
        expect_refused(killed.source.images, 'another process has it open')
        # Nor does a guest run from it
        for image in killed.source.images:
            require(image.is_locked(), f'{image.path} is not locked')
        killed.relay.hold_at()
        for connection in killed.relay.connections:
            connection.resume()
        serving.wait(0)
    expect_rescued(scene, killed.destination, killed.source)


@test(BOTH)
def wrong_images(scene: Scene) -> None:
    """Each reason not to serve is said, and nothing is harmed."""
    killed = source_killed(scene, stamped=True)
    images = killed.source.images
    raw, qcow2 = images
    expect_refused([raw], 'the session has 2 disks; name the images of all')
    expect_refused([raw, raw, qcow2], 'one of them is a copy')
    expect_refused(killed.destination.images, 'serve that one')
    expect_refused([raw, killed.destination.images[1]], 'serve that one')
    other = Image(scene.folder / 'other.raw', 'raw', MIB).create()
    expect_refused([raw, qcow2, other], 'it has no record')
    expect_refused([replace(raw, path=scene.folder / 'nothing')],
                   'there is no such file')
    text = record(raw).read_text('utf-8')
    record(raw).write_text(text.replace('leaving', 'current'), 'utf-8')
    expect_refused(images, 'torn or was changed')
    record(raw).write_text(text, 'utf-8')
    expect_refused(images, 'leave --tls-creds out', '--tls-creds', '/')
    expect_refused(images, 'is no address', '--to', 'beta')
    run(tool('qemu-img'), 'resize', '-q', '-f', 'raw', str(raw.path), '+1M')
    expect_refused(images, 'its size was')
    expect_refused(images, 'resized', '--changed-ok')
    run(tool('qemu-img'), 'resize', '-q', '--shrink', '-f', 'raw',
        str(raw.path), str(raw.size))
    expect_refused(images, 'its mtime was')
    serve(images, '--changed-ok')
    expect_rescued(scene, killed.destination)


def rewrite_record(image: Image, **changes: Any) -> None:
    """Change members of a record; None takes one away."""
    body = json.loads(record(image).read_text('utf-8').split('\n', 1)[1])
    body.update(changes)
    body = {name: value for name, value in body.items() if value is not None}
    record(image).write_bytes(encode_record(body))


@test(RAW)
def another_session(scene: Scene) -> None:
    """The destination has another guest."""
    killed = source_killed(scene)
    image, = killed.source.images
    before = record(image).read_bytes()
    rewrite_record(image, session=str(uuid.uuid4()))
    expect_refused([image], 'there is no session')
    record(image).write_bytes(before)
    serve([image])
    expect_rescued(scene, killed.destination)


def served_from_old_record(scene: Scene) -> None:
    """An older QEMU wrote less: what it did not is asked of the user."""
    killed = source_killed(scene, channels=5, granularity=32768)
    image, = killed.source.images
    rewrite_record(image, handover=None)
    require(record(image).read_text('utf-8').startswith('wsm-record 1 '),
            'the version')
    expect_refused([image], '--only-disk')
    expect_refused([image], '--to', '--only-disk')
    said = serve([image], '--only-disk', '--to', killed.relay.uri)
    require("stays 'leaving'" in said and word(image) == 'leaving', said)
    expect_rescued(scene, killed.destination)


add('served-from-old-record-raw', served_from_old_record, RAW)
add('served-from-old-record-qcow2', served_from_old_record, QCOW2)


@test(BOTH)
def old_record_of_several_disks(scene: Scene) -> None:
    """Which is which is not known, so none is served."""
    killed = source_killed(scene)
    for image in killed.source.images:
        rewrite_record(image, handover=None)
    expect_refused(killed.source.images, 'which disk of the guest it is',
                   '--only-disk', '--to', killed.relay.uri)
    require(disk_total(killed.destination, 'missing') > 0, 'it was served')


@test(RAW)
def never_handed_over(scene: Scene) -> None:
    """Killed in the freeze: the destination is ready, and gets no guest."""
    source = loaded_source(scene)
    destination = scene.destination()
    relay = scene.make_relay(destination)
    relay.hold_at(10)
    start_and_wait(source, relay.uri, 'freeze', switchover_timeout=60000)
    relay.wait_held()
    source.kill()
    relay.hold_at()
    for connection in relay.connections:
        connection.resume()
    destination.wait_migration('postcopy-paused')
    expect_refused(source.images, 'was never handed over')
    require(destination.status() != 'running', 'the guest runs')
    require(states(destination) == ['incomplete'], f'{states(destination)}')
