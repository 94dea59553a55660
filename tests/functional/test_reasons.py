# SPDX-License-Identifier: GPL-2.0-or-later
"""What the destination knows reaches the user, who sits at the source."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from dev.rig.basics import GUEST_BUILD, require
from dev.rig.image import MIB
from dev.rig.scene import Scene, begin, query
from dev.rig.vm import MachineConfig, Vm
from tests.functional.lib.back import has_ended
from tests.functional.lib.moves import expect_unharmed, loaded_source, move
from tests.functional.lib.registry import add, test

FLASH_SIZE = 540672     # 528 KiB, as UEFI variables have


def expect_reason(scene: Scene, source: Vm, destination: Vm,
                  *words: str) -> None:
    """Both query-migrate and query-wsm say why; the guest runs on."""
    begin(source, scene.uri(destination))
    source.wait_migration('failed')
    for text in (source.migration().get('error-desc', ''),
                 query(source).get('error', '')):
        for word in words:
            require(word in text, f'the error lacks "{word}": {text}')
    expect_unharmed(scene, source)
    has_ended(destination)


def flash(folder: Path, size: int, slice_of: int = 0) -> tuple[str, ...]:
    """Options of a machine with flash memory for variables."""
    code = (GUEST_BUILD / 'firmware' / 'bios-256k.bin').read_bytes()
    folder.mkdir()
    (folder / 'code').write_bytes(code)
    with open(folder / 'vars', 'wb') as out:
        out.truncate(slice_of or size)
    part = f',size={size}' if slice_of else ''
    return ('-drive', f'if=pflash,unit=0,format=raw,readonly=on,'
                      f'file={folder}/code',
            '-drive', f'if=pflash,unit=1,format=raw,file={folder}/vars{part}')


def flash_source(scene: Scene) -> Vm:
    scene.config = replace(scene.config, extra=flash(
        scene.folder / 'flash-a', FLASH_SIZE))
    return scene.source(boot=True)


@test()
def flash_of_another_size(scene: Scene) -> None:
    """UEFI variables to a larger device: both sizes and what to do."""
    source = flash_source(scene)
    config = replace(scene.config, extra=flash(scene.folder / 'flash-b', MIB))
    destination = scene.destination(config=config)
    expect_reason(scene, source, destination, str(MIB), str(FLASH_SIZE),
                  "'size'")


@test()
def flash_in_a_slice(scene: Scene) -> None:
    """UEFI variables to a part of a larger device."""
    source = flash_source(scene)
    config = replace(scene.config, extra=flash(scene.folder / 'flash-b',
                                               FLASH_SIZE, MIB))
    destination = scene.destination(config=config)
    move(scene, source, destination)
    require(len(query(source)['disks']) == 2, 'the flash did not move')


def other_machine(name: str, summary: str, change: dict[str, Any],
                  *words: str) -> None:
    """Add a test of a destination that differs from the source."""
    def function(scene: Scene) -> None:
        source = loaded_source(scene)
        config = replace(scene.config, **change)
        destination = scene.destination(config=config)
        expect_reason(scene, source, destination, *words)

    function.__doc__ = summary
    add(name, function)


other_machine('other-memory-size', 'The destination has more memory.',
              {'memory': 384}, 'Size mismatch', 'pc.ram')
other_machine('other-machine-type', 'The destination is another machine.',
              {'machine': 'q35'}, 'Machine type received', 'q35')


@test(MachineConfig(extra=('-device', 'virtio-rng-pci,addr=0x18')))
def missing_device(scene: Scene) -> None:
    """The destination lacks a device: found in the freeze, and said."""
    source = loaded_source(scene)
    destination = scene.destination(config=replace(scene.config, extra=()))
    expect_reason(scene, source, destination, 'Unknown savevm section',
                  '0000:00:18.0/virtio-rng')
