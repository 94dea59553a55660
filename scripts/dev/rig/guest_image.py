# SPDX-License-Identifier: GPL-2.0-or-later
"""Build the guest of the functional tests: kernel, initramfs and firmware.

Debian's kernel and firmware packages are fetched with apt-get download and
unpacked without being installed.  Results, in build/guest by default:
vmlinuz, initrd.img, firmware/.
"""

import gzip
import io
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

from dev.common import ROOT
from dev.rig.basics import GUEST_BUILD

SOURCES = ROOT / 'tests/guest'
KERNEL = 'linux-image-cloud-amd64'
# Boot code that "-kernel" and a PC need
FIRMWARE = {
    'seabios': ['bios-256k.bin', 'vgabios-stdvga.bin'],
    'qemu-system-data': ['linuxboot_dma.bin', 'kvmvapic.bin'],
}
# In the order they are loaded
MODULES = ['virtio_ring', 'virtio', 'virtio_pci_legacy_dev',
           'virtio_pci_modern_dev', 'virtio_pci', 'failover', 'net_failover',
           'virtio_net', 'virtio_blk', 'msr']
UNPACKERS = {'.ko': None, '.xz': ['xz', '-dc'], '.zst': ['zstd', '-dc']}


def run(*argv: str, cwd: Path) -> str:
    done = subprocess.run(argv, cwd=cwd, check=False, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        sys.exit(f'{" ".join(argv)} failed; is the package list up to date '
                 f'(apt-get update)?\n{done.stderr}')
    return done.stdout


def fetch(package: str, cache: Path) -> Path:
    """Unpack the newest Debian package of this name, return its root."""
    root = cache / package
    if root.is_dir():
        return root
    with tempfile.TemporaryDirectory(dir=cache) as name:
        tmp = Path(name)
        # Debian's, whatever is installed here
        run('apt-get', '-o', 'Dir::State::Status=/dev/null', 'download',
            package, cwd=tmp)
        deb = next(tmp.glob('*.deb'))
        run('dpkg-deb', '-x', str(deb), str(tmp / 'root'), cwd=tmp)
        (tmp / 'root').rename(root)
    return root


def kernel_package(cache: Path) -> str:
    """The metapackage depends on the package with the kernel."""
    for line in run('apt-cache', 'depends', KERNEL, cwd=cache).splitlines():
        kind, _, name = line.strip().partition(': ')
        if kind == 'Depends' and name.startswith('linux-image-'):
            return name
    sys.exit(f'{KERNEL} depends on no kernel package')


def read_module(root: Path, name: str) -> bytes:
    for path in root.glob(f'**/{name}.ko*'):
        unpacker = UNPACKERS[path.suffix]
        if unpacker is None:
            return path.read_bytes()
        return subprocess.run([*unpacker, str(path)], check=True,
                              stdout=subprocess.PIPE).stdout
    return b''      # built into this kernel


class Cpio:
    """An archive in cpio's "newc" format, owned by root."""

    def __init__(self, out: BinaryIO) -> None:
        self.out = out
        self.inode = 0

    def add(self, name: str, mode: int, data: bytes = b'') -> None:
        self.inode += 1
        fields = [self.inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0,
                  len(name) + 1, 0]
        self.out.write(b'070701')
        self.out.write(''.join(f'{field:08x}' for field in fields).encode())
        self._padded(name.encode() + b'\0')
        self._padded(data)

    def _padded(self, data: bytes) -> None:
        self.out.write(data)
        self.out.write(bytes(-self.out.tell() % 4))

    def finish(self) -> None:
        self.add('TRAILER!!!', 0)


def compile_init(out: Path) -> Path:
    init = out / 'init'
    sources = [str(path) for path in sorted(SOURCES.glob('*.c'))]
    run('gcc', '-O2', '-g', '-Wall', '-static', '-pthread', '-o', str(init),
        *sources, cwd=SOURCES)
    return init


def build_initrd(init: Path, kernel: Path, target: Path) -> None:
    archive = io.BytesIO()
    cpio = Cpio(archive)
    for name in ('dev', 'modules'):
        cpio.add(name, stat.S_IFDIR | 0o755)
    cpio.add('init', stat.S_IFREG | 0o755, init.read_bytes())
    loaded = []
    for name in MODULES:
        module = read_module(kernel, name)
        if module:
            loaded.append(f'{name}.ko')
            cpio.add(f'modules/{name}.ko', stat.S_IFREG | 0o644, module)
    cpio.add('modules/list', stat.S_IFREG | 0o644,
             ('\n'.join(loaded) + '\n').encode())
    cpio.finish()
    target.write_bytes(gzip.compress(archive.getvalue(), 6, mtime=0))


def build_firmware(cache: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for package, files in FIRMWARE.items():
        root = fetch(package, cache)
        for name in files:
            found = next(root.glob(f'usr/share/**/{name}'), None)
            if found:
                shutil.copy(found, target / name)


def is_current(out: Path) -> bool:
    initrd = out / 'initrd.img'
    if not initrd.exists() or not (out / 'vmlinuz').exists():
        return False
    built = initrd.stat().st_mtime
    sources = [*SOURCES.glob('*.[ch]'), Path(__file__)]
    return all(path.stat().st_mtime < built for path in sources)


def build(out: Path = GUEST_BUILD) -> Path:
    """Build what is out of date; return the folder with the results."""
    if is_current(out):
        return out
    cache = out / 'packages'
    cache.mkdir(parents=True, exist_ok=True)
    cached = [path.name for path in cache.glob('linux-image-*')]
    kernel = fetch(cached[0] if cached else kernel_package(cache), cache)
    build_firmware(cache, out / 'firmware')
    shutil.copy(next(kernel.glob('boot/vmlinuz-*')), out / 'vmlinuz')
    build_initrd(compile_init(out), kernel, out / 'initrd.img')
    return out
