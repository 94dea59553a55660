# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest moves between TCG and KVM, and its time goes on.

Those that need no KVM have a relay that says that the destination has it.
"""

import os
import struct
from dataclasses import replace
from typing import Any, Callable

from dev.rig.accelerators import (BOOTED_BY_TCG, CPU, HPET, KVM, TCG, TSC,
                                  machine)
from dev.rig.basics import Skip, TestFailure, require, wait_until
from dev.rig.guest import Beat
from dev.rig.relay import MAIN, Relay
from dev.rig.scene import (Scene, begin, disk_total, finish, template,
                           wait_phase)
from dev.rig.vm import ACCEL, MachineConfig, Vm
from dev.rig.wire import other_accelerator
from tests.functional.lib.moves import (LOAD, SLOW_DISK, SLOW_PUSH, end,
                                        expect_moved, expect_unharmed,
                                        fill_half, second_try)
from tests.functional.lib.registry import add, test

# In a machine that is emulated Linux waits for ever for a better clock to
# compare the TSC with, so there is none
NO_OTHER = 'hpet=disable pmtmr=0'
# As much as TCG can do in a machine that is emulated
GENTLE = {**LOAD, 'writers': 1, 'rate': 20, 'rrate': 5, 'flush': 10}
# A guest's second may be this much off, and is looked at for so long
DRIFT = 0.01
WINDOW = 20.0
EDGE = 3.0
BEATS = 20
SECTION = b'wsm-clock'
EFER, EFER_SVME = 0xc0000080, 1 << 12
KVM_SYSTEM_TIME = 0x4b564d01


def needs_kvm() -> None:
    if ACCEL != 'kvm' or not os.access('/dev/kvm', os.R_OK | os.W_OK):
        raise Skip('needs KVM: see scripts/test --kvm')


def boot(scene: Scene) -> Vm:
    """
    A guest that knows the frequency of its TSC.

    In a machine that is emulated it fails to find that out.
    """
    needs_kvm()
    config = scene.config
    probe = scene.reopen('probe', scene.new_images('probe'), paused=True)
    cpu = probe.qmp.cmd('query-cpus-fast')[0]['qom-path']
    hertz = probe.qmp.cmd('qom-get', path=cpu, property='tsc-frequency')
    probe.close()
    words = [config.kernel_line, f'tsc_early_khz={hertz // 1000}']
    if TSC in config.kernel_line:
        words.append(NO_OTHER)
    scene.config = replace(config, kernel_line=' '.join(words))
    vm = scene.source(boot=True)
    fill_half(scene)
    expect_clocksource(scene)
    return vm


def booted_by_tcg(scene: Scene) -> Vm:
    """A guest that TCG has booted; perhaps it did so where it is faster."""
    needs_kvm()
    state = BOOTED_BY_TCG if BOOTED_BY_TCG.exists() else template(scene.config)
    vm = scene.reopen('source', scene.new_images('source'), state=state)
    vm.qmp.cmd('cont')
    scene.guest.wait_ready()
    vm.set_params(downtime_limit=2000)
    fill_half(scene)
    expect_clocksource(scene)
    return vm


def offset(beats: list[Beat], pace: float) -> float:
    """The host's clock minus the guest's: of the beat that was fastest."""
    return min(beat.time * pace - beat.guest_ns / 1e9 for beat in beats)


def expect_time(scene: Scene, pace: float = 1.0) -> None:
    """
    Time goes on in the guest, forwards, at @pace times the host's.

    The first beat says little: it may have been on its way in the freeze.
    """
    guest = scene.guest
    first = guest.wait_progress(beats=BEATS).time
    guest.wait_beat(lambda beat: beat.time >= first + WINDOW,
                    'the guest has not lived for long enough')
    beats = guest.beats(first)
    middle = (first + beats[-1].time) / 2
    halves = ([b for b in beats if b.time < middle],
              [b for b in beats if b.time >= middle])
    for half in halves:
        require(len(half) >= BEATS, f'only {len(half)} beats in half the time')
    drift = (offset(halves[1], pace) - offset(halves[0], pace)) / (
        middle - first)
    require(abs(drift) < DRIFT, f'the clock drifts by {100 * drift:.2f} % '
                                f'from a pace of {pace}')


def last_beats(scene: Scene) -> list[Beat]:
    """Of the last seconds before a move."""
    last = scene.guest.wait_progress(beats=10)
    return scene.guest.beats(last.time - EDGE)


def expect_forwards(scene: Scene, before_move: list[Beat]) -> None:
    """Its clock never went back, and did not leap when the guest moved."""
    beats = sorted(scene.guest.beats(), key=lambda beat: beat.sequence)
    gained = offset(before_move, 1) - offset(beats[-len(before_move):], 1)
    require(gained < 1, f'the clock leapt {gained:.1f} s forwards')
    for before, after in zip(beats, beats[1:]):
        require(after.guest_ns >= before.guest_ns,
                f'beat {after.sequence} came at {after.guest_ns} ns, '
                f'{before.sequence} at {before.guest_ns} ns')


def expect_clocksource(scene: Scene) -> None:
    wanted = scene.config.kernel_line.split()[0].partition('=')[2]
    wait_until(lambda: scene.guest.command('clocksource') == f'ok {wanted}',
               f'the guest reads its time from the {wanted}')


def to(scene: Scene, source: Vm, accel: str, caps: tuple[str, ...] = (),
       **more: int) -> Vm:
    """
    Move the guest, at work, to @accel; its clock and blocks are right.

    @more is what it does besides the usual work.
    """
    name = f'destination-{len(scene.vms)}'
    destination = scene.destination(
        name=name, config=replace(scene.config, accel=accel))
    for vm in (source, destination):
        vm.set_caps(*caps)
    scene.guest.start(**GENTLE, **more)
    before = last_beats(scene)
    begin(source, scene.uri(destination), **SLOW_PUSH)
    finish(source, destination)
    destination.wait_running()
    expect_time(scene)
    expect_forwards(scene, before)
    expect_moved(scene, source, destination)
    expect_clocksource(scene)
    source.quit()
    destination.set_params(downtime_limit=2000)
    return destination


def end_last(vm: Vm) -> None:
    vm.quit()
    for image in vm.images:
        require(not image.is_locked(), f'{image.path} is still locked')
        image.check()


def there_and_back(name: str, config: MachineConfig, ways: list[str],
                   summary: str, slow: bool = False, age: int = 0,
                   begun: Callable[[Scene], Vm] = boot,
                   **options: Any) -> None:
    """
    Add a test that moves a guest to each of @ways.

    It is at least @age seconds old then.
    """
    def function(scene: Scene) -> None:
        vm = begun(scene)
        scene.guest.wait_beat(lambda beat: beat.guest_ns > age * 1e9,
                              f'the guest is {age} s old')
        for accel in ways:
            vm = to(scene, vm, accel, **options)
        end_last(vm)

    function.__doc__ = summary
    add(f'accel-{name}', function, config, slow)


there_and_back('tsc', machine(KVM), [TCG, KVM, TCG],
               'KVM to TCG, and back, and there; the time is the TSC.')
there_and_back('hpet', machine(KVM, clock=HPET), [TCG, KVM],
               'The time is the HPET.', slow=True)
there_and_back('two-cpus', machine(KVM, smp=2, machine='q35'), [TCG, KVM],
               'Two vCPUs on q35, with postcopy-ram.', slow=True,
               caps=('postcopy-ram',))
there_and_back('smp', machine(KVM, smp=2), [TCG, KVM], 'Two vCPUs.', slow=True)
there_and_back('q35', machine(KVM, machine='q35'), [TCG, KVM],
               'The machine q35.', slow=True)
there_and_back('postcopy-ram', machine(KVM), [TCG, KVM],
               'Memory comes in post-copy, too.', slow=True,
               caps=('postcopy-ram',))
there_and_back('old', machine(KVM), [TCG, KVM],
               'A guest that is older than where it goes to.', slow=True,
               age=300)
there_and_back('from-tcg', machine(TCG), [KVM, TCG],
               'A guest that TCG has booted goes to KVM.', slow=True,
               begun=booted_by_tcg, fpu=1)
there_and_back('ten-times', machine(KVM), [TCG, KVM] * 10,
               'There and back ten times.', slow=True)


# What cannot cross

def expect_refused(scene: Scene, source: Vm, uri: str,
                   words: list[str]) -> None:
    """It is said why, nothing is copied, and the guest does not care."""
    begin(source, uri)
    why = source.wait_migration('failed')['error-desc']
    for word in words:
        require(word in why, f'{word} is not in: {why}')
    phases = [data['phase'] for data in source.qmp.seen('WSM_PHASE')]
    require('disk-precopy' not in phases, f'it got as far as {phases}')
    sent = disk_total(source, 'sent', 'zero')
    require(not sent, f'{sent} bytes were sent')
    expect_unharmed(scene, source)


def set_msr(scene: Scene, number: int, value: int) -> None:
    scene.guest.command(f'msr {number:x} {value:x}')


def set_svm(scene: Scene, on: bool) -> None:
    """As if a hypervisor were loaded in the guest, or went away."""
    efer = int(scene.guest.command(f'msr {EFER:x}').split()[1], 16)
    set_msr(scene, EFER, efer | EFER_SVME if on else efer & ~EFER_SVME)


def refused(name: str, cpu: str, words: list[str], summary: str,
            prepare: Callable[[Scene], None] = lambda scene: None) -> None:
    """Add a test of a KVM guest that cannot go to TCG, as the source says."""
    def function(scene: Scene) -> None:
        needs_kvm()
        source = scene.source(boot=True)
        fill_half(scene)
        prepare(scene)
        scene.guest.start(**LOAD)
        destination = scene.destination(
            config=replace(scene.config, accel=TCG))
        expect_refused(scene, source, scene.uri(destination),
                       ['on KVM and the destination on TCG', *words])

    function.__doc__ = summary
    add(f'accel-refused-{name}', function, machine(KVM, cpu=cpu))


refused('pv', 'qemu64,-svm', ['kvmclock', 'kvm-pv-eoi', ',kvm=off'],
        'A guest that was offered what only KVM has.')
refused('deadline', f'{CPU},+tsc-deadline', ['tsc-deadline', ',-tsc-deadline'],
        'A guest with a timer that TCG lacks.')
refused('hyperv', f'{CPU},hv-relaxed,hv-vapic,hv-time',
        ["Hyper-V's enlightenments", "without 'hv-...'"],
        'A guest that was offered what Hyper-V has.')
refused('kvmclock', CPU, ['it uses kvmclock', 'kvm=off'],
        'A guest uses kvmclock although its CPU does not say so.',
        lambda scene: set_msr(scene, KVM_SYSTEM_TIME, 0x1000 | 1))
refused('svm', 'qemu64,kvm=off,-x2apic,+svm',
        ['SVM is on', 'modprobe -r kvm_amd'],
        'A guest that has a hypervisor of its own.',
        lambda scene: set_svm(scene, True))


# Without KVM

def says_kvm(scene: Scene, destination: Vm) -> Relay:
    """The way to @destination, which is TCG, as if that were KVM."""
    relay = scene.make_relay(destination)
    relay.edit_answer = other_accelerator
    return relay


def told(relay: Relay) -> bool:
    """Was the clock in what the source sent?"""
    with relay.lock:
        return any(SECTION in c.captured for c in relay.connections
                   if c.kind == MAIN)


def move_through(scene: Scene, source: Vm, destination: Vm, relay: Relay,
                 pace: float = 1.0) -> None:
    relay.capture = True
    scene.guest.start(**LOAD)
    before = last_beats(scene)
    begin(source, relay.uri, **SLOW_PUSH)
    finish(source, destination)
    destination.wait_running()
    expect_time(scene, pace)
    expect_forwards(scene, before)
    expect_moved(scene, source, destination)
    end(source, destination)


@test(machine(TCG))
def accel_same(scene: Scene) -> None:
    """Between two TCG nothing is said of the clock."""
    source = scene.source()
    fill_half(scene)
    destination = scene.destination()
    relay = scene.make_relay(destination)
    move_through(scene, source, destination, relay)
    require(not told(relay), 'the clock was sent')


@test(machine(TCG))
def accel_told(scene: Scene) -> None:
    """The clock is sent and set if the destination says that it is KVM."""
    source = scene.source()
    fill_half(scene)
    destination = scene.destination()
    relay = says_kvm(scene, destination)
    move_through(scene, source, destination, relay)
    require(told(relay), 'the clock was not sent')
    require('wsm_clock_load' in destination.stderr(), 'it was not taken')


class HalfSpeed:
    """What a relay makes of the section: a counter half as fast."""

    def __init__(self) -> None:
        self.sections = 0

    def __call__(self, _kind: str, data: bytes) -> bytes:
        place = data.find(SECTION)
        if place < 0:
            return data
        self.sections += 1
        # Behind the name come instance and version, then the counter
        place += len(SECTION) + 8 + 8
        khz = struct.unpack_from('>I', data, place)[0]
        return (data[:place] + struct.pack('>I', khz // 2)
                + data[place + 4:])


@test(machine(TCG))
def accel_other_pace(scene: Scene) -> None:
    """A counter that had half the frequency goes on with that under TCG."""
    source = scene.source()
    try:
        expect_clocksource(scene)
    except TestFailure as err:
        raise Skip('Linux does not trust the TSC of this machine') from err
    fill_half(scene)
    destination = scene.destination()
    relay = says_kvm(scene, destination)
    relay.edit = half = HalfSpeed()
    move_through(scene, source, destination, relay, pace=0.5)
    require(half.sections == 1, f'{half.sections} sections were changed')


@test(machine(TCG, cpu='qemu64'))
def accel_refused_from_tcg(scene: Scene) -> None:
    """A guest with SVM on goes from TCG to TCG alone."""
    source = scene.source()
    fill_half(scene)
    set_svm(scene, True)
    destination = scene.destination()
    relay = says_kvm(scene, destination)
    expect_refused(scene, source, relay.uri,
                   ['on TCG and the destination on KVM', 'SVM is on',
                    'modprobe -r kvm_amd'])
    scene.guest.start(**LOAD)
    second_try(scene, source)


@test(machine(TCG, cpu='qemu64'))
def accel_svm_late(scene: Scene) -> None:
    """SVM is switched on while the guest is copied: it stays, and works."""
    source = scene.source()
    fill_half(scene)
    scene.guest.start(**LOAD)
    destination = scene.destination()
    relay = says_kvm(scene, destination)
    begin(source, relay.uri, **SLOW_DISK)
    wait_phase(source, 'disk-precopy')
    set_svm(scene, True)
    source.qmp.cmd('wsm-set-options', bandwidth=0)
    why = source.wait_migration('failed')['error-desc']
    require('SVM is on' in why and 'modprobe -r kvm_amd' in why,
            f'SVM is not in: {why}')
    expect_unharmed(scene, source)
    set_svm(scene, False)
    second_try(scene, source)
