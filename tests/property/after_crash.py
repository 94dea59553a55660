# SPDX-License-Identifier: GPL-2.0-or-later
"""A migration that lost a side in post-copy, and what the user does then.

He looks at the images with wsm-info, as docs/failure-modes.md tells him.  The
guest's disk must be what the model says at each of these times: what was
flushed is there, whether it is in one image or, with the map, in two.
"""

import contextlib
import random
import time
from typing import TYPE_CHECKING, Iterator, Optional

from dev.rig.basics import require, wait_until
from dev.rig.image import Image
from dev.rig.scene import disk_total, query
from tests.crash.images import contents
from tests.crash.whose import BOTH, DESTINATION, SOURCE, owner, words
from tests.functional.lib.back import states
from tests.functional.lib.mapfile import map_path, merged, read_map
from tests.functional.lib.rejoin import (Crashed, Finishing, expect_no_rest,
                                         maps_are_written)
from tests.functional.lib.rescue import Serving, wait_missing
from tests.property.machine import Machine
from tests.property.mischief import Found, Maps
from tests.property.model import moved
from tests.property.plan import CrashPlan, Life

if TYPE_CHECKING:
    from tests.property.move import Move


def has_source(vm: Machine) -> bool:
    """Whether somebody brings what is missing, or nothing is."""
    info = query(vm)
    return (any(channel['connected'] for channel in info.get('channels', []))
            or not any(disk['missing'] for disk in info['disks']))


class AfterCrash:
    """What is left of a migration, beginning where the guest has gone over."""

    def __init__(self, move: 'Move', plan: CrashPlan,
                 rng: random.Random) -> None:
        self.move, self.plan, self.rng = move, plan, rng
        self.world, self.target = move.world, move.plan.target
        self.source: Optional[Machine] = move.source    # while it lives
        self.frozen = [bytes(disk.data) for disk in self.world.disks]
        self.flushed = False        # something, by the guest over there
        self.served = False         # the source's images were
        self.uri = move.uri
        self.world.note(f'    {plan}')
        self.maps = Maps(self.world, self.images(self.target),
                         self.images(self.world.here))
        for disk in self.world.disks:
            disk.track(True)

    def images(self, host: int) -> list[Image]:
        """Those of the guest's disks on @host."""
        return [self.world.image(host, disk) for disk in self.world.disks]

    # The guest at work where blocks are missing

    def work(self, vm: Machine, loose: bool) -> None:
        """It writes and flushes in rounds; with @loose not the last one."""
        for _ in range(self.plan.rounds):
            self.world.guest_reads(vm, self.rng)
            self.world.guest_writes(vm, self.target, self.rng)
            vm.flush()
            self.flushed = True
            for disk in self.world.disks:
                disk.flushed()
        if loose:
            self.world.guest_writes(vm, self.target, self.rng)
            self.world.count('crashes with writes not flushed')

    def begin(self) -> None:
        """Work in post-copy, then somebody dies."""
        source, dest, plan = self.move.source, self.move.dest, self.plan
        wanted = 'paused' if self.move.plan.paused else 'running'
        wait_until(lambda: dest.status() == wanted, f'destination {wanted}')
        if plan.committed:
            wait_until(lambda: source.ended() or maps_are_written(dest),
                       'the maps are written')
        if wanted == 'running':
            self.work(dest, plan.loose)
        if source.ended() == 'completed':
            self.world.count('crashes that came too late')
        if plan.who == 'source':
            self.kill_source()
            self.source_killed()
            return
        self.world.kill(dest)
        if plan.who == 'both':
            self.kill_source()
        self.destination_killed()

    # Who dies

    def kill_source(self) -> None:
        """Kill it, if it lives yet."""
        if self.source and self.source.alive():
            self.world.kill(self.source)
        self.source = None

    def source_killed(self) -> None:
        """The destination runs the guest, and is served."""
        dest, killed = self.move.dest, self.plan.lives[0].killed
        self.kill_source()
        wait_until(dest.is_incoming_over, 'the destination has noticed')
        if disk_total(dest, 'missing'):
            with self.serve() as serving:
                wait_until(lambda: has_source(dest), 'it is served')
                if dest.status() == 'running':
                    self.work(dest, killed)
                if killed:
                    self.world.kill(dest)
                else:
                    serving.wait(0)
        if killed:
            self.world.kill(dest)
            self.destination_dead()
            return
        dest.wait_migration('completed')
        require(set(states(dest)) == {'current'}, f'{states(dest)}')
        expect_no_rest(self.crashed())
        self.world.count('sources served')
        self.lives_on(dest)

    def destination_killed(self) -> None:
        """The source may live."""
        if self.source:
            end = wait_until(self.source.ended, 'the source has noticed')
            require(bool(self.source.refused()), 'cont at the source')
            self.world.note(f'    the source is {end}')
        self.destination_dead()

    def destination_dead(self) -> None:
        """Nobody runs the guest."""
        for number, life in enumerate(self.plan.lives):
            whose = self.look()
            self.verify(whose)
            if whose == SOURCE:
                self.at_source()
                return
            if whose == DESTINATION:
                if self.plan.give_up:
                    self.back_to_freeze()
                else:
                    self.at_destination()
                return
            self.play_mischief(number)
            if self.plan.give_up:
                self.back_to_freeze()
                return
            if self.live(life):
                return
        raise AssertionError('the last life has not ended')

    # Look

    def look(self) -> str:
        """Whose disk is the guest's?"""
        left = words(self.images(self.world.here))
        come = words(self.images(self.target))
        whose = owner(left, come)
        self.world.note(f'    {left} {come}: {whose}')
        self.world.count(f'crashes, disk is of {whose}')
        require(whose != SOURCE or not self.flushed,
                f'the guest has flushed over there, but {left} {come}')
        return whose

    def disk_images(self, whose: str) -> Iterator[Image]:
        """Those that have the guest's disk, merged if need be."""
        host = self.world.here if whose == SOURCE else self.target
        images = self.images(host)
        if whose != BOTH:
            yield from images
            return
        for state, image, left in zip(words(images), images,
                                      self.images(self.world.here)):
            yield merged(read_map(map_path(image)), image.path, left,
                         self.world.folder / f'merged-{image.path.name}'
                         ) if state == 'arriving' else image

    def verify(self, whose: str) -> None:
        """Each byte that was flushed is there before anybody does anything."""
        for disk, image in zip(self.world.disks, self.disk_images(whose)):
            text = disk.settle(contents(image, self.world.folder))
            require(not text, f'{disk.name}, {whose}: {text}')
            self.world.count('bytes compared', disk.size)

    # Somebody meddles with the maps

    def play_mischief(self, number: int) -> None:
        """What is put in place is refused, or does no harm.

        If the guest is given up the last one stays.
        """
        world = self.world
        kinds = self.plan.mischief[number]
        for place, kind in enumerate(kinds):
            self.maps.look()
            found = self.maps.play(kind, self.rng)
            if not found:
                continue
            world.note(f'    {kind}: {found}')
            world.count(f'maps: {kind}')
            for disk in found.copied:
                world.models(world.here)[disk].map = self.move.session
            if found.goes_on:
                self.verify(self.look())
                continue
            self.expect_refused(found)
            if not self.plan.give_up or place < len(kinds) - 1:
                self.maps.put_back()
        if not self.maps.changed:
            self.maps.look()

    def expect_refused(self, found: Found) -> None:
        """No guest runs from these images, and nobody goes on with them."""
        world, images = self.world, self.images(self.target)
        wanted = found.states
        said = words(images, False)
        vm = world.launch(self.target)
        require(states(vm) == wanted, f'{states(vm)} instead of {wanted}')
        require(said == wanted, f'wsm-info: {said} instead of {wanted}')
        require(bool(vm.refused()), 'cont was not refused')
        vm.qmp.expect_error('wsm-rejoin', uri='tcp:127.0.0.1:0')
        if 'arriving' in wanted:
            vm.qmp.expect_error('wsm-adopt', 'came here from')
            if found.damaged:
                vm.qmp.expect_error('wsm-adopt', 'stale', missing='zero')
        require(vm.status() != 'running', 'the guest runs')
        if self.rng.random() < 0.5:
            world.end(vm)
        else:
            world.kill(vm)
        if self.rng.random() < 0.3:
            with Finishing(self.crashed()) as finishing:
                require('wsm-finish:' in finishing.wait(1), finishing.said)
        require(words(images, False) == wanted, 'it has become something else')

    # Another life

    def serve(self) -> Serving:
        """The source's images are served to who listens there."""
        self.kill_source()
        self.served = True
        return Serving(self.images(self.world.here))

    @contextlib.contextmanager
    def source_comes(self, life: Life) -> Iterator[Optional[Serving]]:
        """By itself if it lives, or else its images are served."""
        if self.source and not life.serve:
            self.source.qmp.cmd('wsm-set-options', bandwidth=0, x_push_delay=
                                500 if life.killed else 0)
            yield None
        else:
            with self.serve() as serving:
                yield serving

    def crashed(self) -> Crashed:
        """What wsm-finish must be told of."""
        return Crashed(self.move.source, self.images(self.target), [],
                       self.uri)

    def live(self, life: Life) -> bool:
        """The destination's images go on; returns whether to the end."""
        self.world.note(f'    {life}')
        return self.finish(life) if life.offline else self.rejoin(life)

    def finish(self, life: Life) -> bool:
        """Without a guest."""
        with Finishing(self.crashed()) as finishing:
            with self.source_comes(life) as serving:
                if life.killed:
                    time.sleep(life.delay)
                else:
                    finishing.wait(0)
                    self.source_is_told(serving)
        if life.killed:
            wait_until(lambda: not any(image.is_locked() for image
                                       in self.images(self.target)),
                       'its QEMU has ended')
            self.maps.ended(True)
            return False
        self.world.count('finished')
        self.verify(DESTINATION)
        self.at_destination()
        return True

    def rejoin(self, life: Life) -> bool:
        """A QEMU goes on, and the guest perhaps runs meanwhile."""
        world = self.world
        vm = world.launch(self.target)
        require(bool(vm.refused()), 'cont was not refused')
        vm.qmp.cmd('wsm-rejoin', uri=self.uri)
        missing = disk_total(vm, 'missing')
        require(missing > 0, 'nothing is missing')
        world.count('rejoined')
        with self.source_comes(life) as serving:
            if life.runs:
                vm.run()
                wait_until(lambda: has_source(vm), 'the source has come')
                self.work(vm, life.killed)
            elif life.killed:
                wait_missing(vm, missing)
            if life.killed:
                world.kill(vm)
                self.maps.ended(not life.runs)
                return False
            self.source_is_told(serving)
        wait_until(lambda: str(query(vm)['phase']) == 'completed',
                   'it is whole')
        require(set(states(vm)) == {'current'}, f'{states(vm)}')
        require(not disk_total(vm, 'missing'), 'something is missing')
        expect_no_rest(self.crashed())
        self.lives_on(vm)
        return True

    def source_is_told(self, serving: Optional[Serving]) -> None:
        """The source knows that all is there."""
        if serving:
            serving.wait(0)
        else:
            assert self.source
            self.source.qmp.cmd('wsm-set-options', x_push_delay=0)
            self.source.wait_migration('completed')

    # The ends; what the model knows then

    def tell_model(self, known: bool) -> None:
        """The guest is over there; if @known by a migration that ended."""
        for disk in self.world.disks:
            here, there = disk.images[self.world.here], disk.images[self.target]
            moved(here, there, disk.point(self.move.session),
                  self.move.plan.points, disk.size)
            there.map = ''
            if known:
                there.doubt()
            else:
                there.forget()
        self.leave_source()

    def leave_source(self) -> None:
        """End it, if it lives; its images are stale."""
        world = self.world
        if self.source:
            require(bool(self.source.refused()), 'cont at the source')
            if self.source.ended() == 'completed':
                world.end(self.source)
            self.kill_source()
        found = words(self.images(world.here))
        require(set(found) <= {'leaving', 'handed-over'}, f'source: {found}')
        for image, state in zip(world.models(world.here), found):
            image.state, image.session = state, self.move.session
            if state == 'handed-over' and not self.served:
                image.doubt()       # it has heard the end
            else:
                image.forget()

    def lives_on(self, vm: Machine) -> None:
        """The guest is at the destination, in a QEMU that has it."""
        world = self.world
        self.tell_model(vm is self.move.dest)
        world.arrived(self.target, vm)
        world.compare(vm, self.target)
        if vm.status() != 'running':
            vm.run()

    def at_destination(self) -> None:
        """The guest boots from the destination's images."""
        self.tell_model(False)
        self.world.arrived(self.target, self.world.boot(self.target))
        self.world.compare(self.world.vm, self.target)

    def leave_destination(self) -> None:
        """Its images are as they are."""
        for image, word in zip(self.world.models(self.target),
                               words(self.images(self.target), False)):
            image.write(image.size)
            image.forget()
            image.session = self.move.session
            image.state = 'current' if word == 'current' else 'incomplete'
            image.map = self.move.session if word == 'arriving' else ''
            image.map_is_good = not self.maps.damaged

    def at_source(self) -> None:
        """The guest never wrote at the destination, for good."""
        world = self.world
        self.kill_source()
        self.leave_destination()
        for disk, state in zip(world.disks, words(self.images(world.here))):
            image = disk.images[world.here]
            if state == 'handed-over':
                image.left(disk.point(self.move.session),
                           self.move.plan.points)
                image.doubt()       # it has heard the end
            else:
                image.forget()
            image.state, image.session = state, self.move.session
        world.vm = world.adopt(world.here)
        world.compare(world.vm, world.here)
        world.count('guests lost')

    def back_to_freeze(self) -> None:
        """The destination is given up, and what was written there lost."""
        for disk, frozen in zip(self.world.disks, self.frozen):
            disk.data[:] = frozen
        self.world.count('back to the freeze')
        self.at_source()
        self.world.likely = self.target
