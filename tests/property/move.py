# SPDX-License-Identifier: GPL-2.0-or-later
"""One migration, with all that may happen to it on the way."""

import random
import time
from dataclasses import dataclass, field, replace

from dev.rig.basics import require, wait_until
from dev.rig.qmp import QmpError
from dev.rig.scene import query
from tests.crash.whose import words
from tests.property.after_crash import AfterCrash
from tests.property.machine import Machine
from tests.property.model import check_basis, most_sent, moved
from tests.property.plan import Plan, draw
from tests.property.world import World

GIVEN_UP = ('failed', 'cancelled')


@dataclass
class Move:
    """A migration under way."""
    world: World
    plan: Plan
    rng: random.Random
    source: Machine
    dest: Machine
    session: str = ''
    uri: str = ''
    written: list[int] = field(default_factory=list)    # in pre-copy

    # Beginning

    def begin(self) -> None:
        """Come to disk-precopy, in which images are written to."""
        world, plan = self.world, self.plan
        for image in world.models(world.here):
            image.limit(plan.points)    # which the option does at once
        if plan.provoke and world.may_not_write(plan.target, sure=True):
            self.expect_refused()
            self.dest = world.launch(plan.target, incoming=True)
        self.connect(adopt=True)
        wait_until(lambda: (self.reached('disk-precopy')
                            or self.source.ended()), 'disk-precopy')
        require(self.reached('disk-precopy'), 'migration failed in setup: '
                f'{self.source.migration()}')
        for image in world.models(plan.target):
            image.taken()

    def expect_refused(self) -> None:
        """The destination has images that may be all there is of a guest."""
        world, source = self.world, self.source
        self.connect(adopt=False)
        end = source.wait_ended()
        text = str(source.migration().get('error-desc'))
        require(end == 'failed' and 'wsm-adopt' in text
                and not self.reached('disk-precopy'),
                f'host{self.plan.target} was written to: {end} {text}')
        self.dest.end_as_failed()
        self.dest.close()
        wait_until(lambda: query(source)['phase'] in GIVEN_UP,
                   'the source has cleaned up')
        for disk in world.disks:
            if disk.fmt != 'raw':
                disk.images[self.plan.target].doubt()
        world.count('destinations refused')

    def connect(self, adopt: bool) -> None:
        """Begin; with @adopt the destination may write to its images."""
        world, plan = self.world, self.plan
        if plan.paused:
            self.source.qmp.cmd('stop')
        self.source.flush()         # it may be killed
        basis = [{'disk': disk.name, 'kind': plan.wish}
                 for disk in world.disks]
        self.source.prepare(basis=basis, sync_points=plan.points,
                            **plan.options)
        self.source.set_params(downtime_limit=2000)
        self.dest.prepare(sync_points=plan.points)
        if adopt and world.may_not_write(plan.target, sure=False):
            world.make_current(self.dest, plan.target)
            world.count('adopted before a move')
        self.uri = f'tcp:127.0.0.1:{self.dest.listen()}'
        before = self.source.learn_session()
        self.source.qmp.cmd('migrate', uri=self.uri)
        wait_until(lambda: self.source.learn_session() != before, 'session')
        self.session = self.source.session
        self.dest.learn_session(self.session)

    def reached(self, phase: str) -> bool:
        return phase in self.source.phases()

    def check_choice(self) -> None:
        """After phase setup: what does it build on, and may it?"""
        world, plan = self.world, self.plan
        for number, found in enumerate(query(self.source)['disks']):
            disk = world.disks[number]
            source, dest = disk.images[world.here], disk.images[plan.target]
            world.note(f'    {disk.name} {self.session[:8]}: {source} {dest} '
                       f'basis {found["basis"].get("point", "none")[:8]}')
            check_basis(disk.name, source, dest, plan.wish, found['basis'])
            world.count(f'basis {found["basis"]["kind"]}')

    def hold(self) -> None:
        """Stop the destination's process: then no handover can come."""
        world = self.world
        self.dest.stop_process(True)
        try:
            for _ in range(3):
                time.sleep(0.05)
                if not self.source.in_precopy():
                    return
            for _ in range(self.rng.choice((1, 3))):
                self.written.append(world.guest_writes(
                    self.source, world.here, self.rng))
            if self.plan.end == 'crash':
                self.written.append(world.guest_writes_much(
                    self.source, world.here, self.rng))
            self.source.flush()
            world.count('holds in pre-copy')
        finally:
            self.dest.stop_process(False)

    # The guest arrives

    def complete(self) -> None:
        world, plan = self.world, self.plan
        late = self.after_handover() if plan.late else 0
        self.source.qmp.cmd('wsm-set-options', bandwidth=0, x_push_delay=0)
        self.source.wait_migration('completed')
        self.dest.wait_migration('completed')
        self.check_sent()
        self.tell_model(late)
        self.leave_source()
        world.arrived(plan.target, self.dest)
        wanted = 'paused' if plan.paused else 'running'
        wait_until(lambda: self.dest.status() == wanted, f'guest {wanted}')
        world.compare(self.dest, world.here)
        if plan.paused:
            self.dest.run()

    def tell_model(self, late: int) -> None:
        """The guest went over, and wrote @late bytes in post-copy."""
        for disk in self.world.disks:
            moved(disk.images[self.world.here], disk.images[self.plan.target],
                  disk.point(self.session), self.plan.points, late)

    def after_handover(self) -> int:
        """The guest at work where blocks are still missing."""
        world = self.world
        wanted = 'paused' if self.plan.paused else 'running'
        wait_until(lambda: self.dest.status() == wanted,
                   f'destination is {wanted}')
        total = 0
        for _ in range(self.rng.choice((2, 5))):
            if query(self.dest)['phase'] == 'postcopy':
                world.count('visits in post-copy')
            world.guest_reads(self.dest, self.rng)
            if not self.plan.paused:
                total += world.guest_writes(self.dest, self.plan.target,
                                            self.rng)
        return total

    def check_sent(self) -> None:
        """Was no more sent than what either side has written?"""
        world, plan = self.world, self.plan
        if plan.wish != 'auto':
            return
        for number, found in enumerate(query(self.source)['disks']):
            disk = world.disks[number]
            most = sum(self.written) + most_sent(
                disk.images[world.here], disk.images[plan.target])
            have = found['sent'] + found['zero']
            require(found['basis']['kind'] != 'sync-point' or have <= most,
                    f'{disk.name}: {have} bytes sent, but at most {most} were '
                    'written since the sync point')

    def leave_source(self) -> None:
        """Its copy is stale from now on."""
        world = self.world
        if not self.plan.kill_after:
            text = self.source.refused()
            require(text, 'cont at the source was not refused')
            world.end(self.source)
            return
        for image in world.models(world.here):
            image.doubt()
        world.kill(self.source)

    # The guest stays

    def after_break(self, dest_sure: bool, dest_alive: bool) -> None:
        """Both sides keep a sync point of a migration that broke off."""
        world, plan = self.world, self.plan
        for disk in world.disks:
            here, there = disk.images[world.here], disk.images[plan.target]
            point = disk.point(self.session)
            here.broke_off(point, True, plan.points, True)
            if dest_alive:
                there.broke_off(point, dest_sure, plan.points, False)
            else:
                # It was being written to when it was killed
                there.write(disk.size)
                there.forget()
            there.begin_incomplete(self.session)
            if dest_alive and not dest_sure:
                there.state = ''

    def cancel(self) -> bool:
        """Returns whether the guest is still here."""
        try:
            self.source.qmp.cmd('migrate_cancel')
        except QmpError:
            pass                # the handover has been
        end = wait_until(lambda: self.source.ended() or
                         self.reached('postcopy') and 'postcopy',
                         'end of the cancelled migration')
        if end in ('completed', 'postcopy'):
            return False
        self.dest.end_as_failed()
        self.after_break('disk-precopy' in self.dest.phases(), True)
        self.dest.close()
        self.goes_on()
        return True

    def goes_on(self) -> None:
        wait_until(lambda: query(self.source)['phase'] in GIVEN_UP,
                   'the source has cleaned up')
        if self.plan.paused:
            self.source.run()
        wait_until(lambda: self.source.status() == 'running',
                   'the guest runs again')
        self.world.count('moves broken off')

    def kill_dest(self) -> None:
        self.world.kill(self.dest)
        end = wait_until(self.source.ended,
                         'source notices')
        if end in ('completed', 'lost'):
            self.after_crash().destination_killed()
        else:
            self.after_break(False, False)
            self.goes_on()

    def after_crash(self) -> AfterCrash:
        """The guest has gone over, and somebody is killed."""
        return AfterCrash(self, self.plan.crash, self.rng)

    def kill_source(self) -> None:
        world = self.world
        world.kill(self.source)
        wait_until(self.dest.is_incoming_over, 'destination notices')
        phases = self.dest.phases()
        if 'completed' in phases:
            self.survived()
            return
        frozen = 'freeze' in phases
        if frozen and self.dest.has_guest():
            self.after_crash().source_killed()
            return
        if frozen:
            world.kill(self.dest)
        else:
            self.dest.end_as_failed()
            self.dest.close()
        self.after_break(not frozen and 'disk-precopy' in phases, True)
        for image in world.models(world.here):
            image.forget()
            image.state = ''        # perhaps it was about to hand over
        for image in world.models(self.plan.target) if frozen else []:
            image.forget()
            image.state = ''        # perhaps all was there
        world.vm = world.adopt(world.here)
        world.count('guests lost' if 'postcopy' in phases
                    else 'moves broken off')

    def survived(self) -> None:
        """The source was killed when nobody needed it any more."""
        world, plan = self.world, self.plan
        self.tell_model(0)
        for disk in world.disks:
            here = disk.images[world.here]
            disk.images[plan.target].doubt()
            here.doubt()            # if they were still in memory only
            here.session = self.session
            here.state = words([world.image(world.here, disk)])[0]
        world.arrived(plan.target, self.dest)
        if self.dest.status() != 'running':
            self.dest.run()
        world.compare(self.dest, world.here)


def move(world: World, rng: random.Random) -> None:
    """A step: draw a migration and do it; after a crash, one more."""
    plan = draw(world, rng)
    carry_out(world, plan, rng)
    if plan.end == 'crash':
        after = draw(world, rng)
        carry_out(world, replace(after, target=world.likely, end='complete',
                                 wish='auto'), rng)


def carry_out(world: World, plan: Plan, rng: random.Random) -> None:
    """Do a migration."""
    world.note(f'  host{world.here} {plan}')
    if plan.options['bandwidth']:
        world.guest_writes_much(world.vm, world.here, rng)
    dest = world.launch(plan.target, incoming=True)
    this = Move(world, plan, rng, world.vm, dest)
    this.begin()
    this.check_choice()
    if plan.hold and not plan.paused:
        this.hold()
    if plan.end == 'complete' or plan.options['max_residue'] > 1000:
        this.source.qmp.cmd('wsm-set-options', bandwidth=0)
    if plan.end == 'complete':
        this.complete()
        return
    if plan.end == 'crash':
        this.after_crash().begin()
        return
    time.sleep(plan.delay)
    if plan.end == 'kill-dest':
        this.kill_dest()
    elif plan.end == 'kill-source':
        this.kill_source()
    elif not this.cancel():
        this.complete()
