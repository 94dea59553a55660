# SPDX-License-Identifier: GPL-2.0-or-later
"""Configure and compile QEMU, in variants, each in its own directory."""

import json
import os
import re
import shlex
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterable, Sequence

from dev import debian, source
from dev.common import (BUILD, ROOT, Failure, build_lock, link, output, run,
                        say, write_if_changed)

MESON_ENV = BUILD / "meson-env"
FIRMWARE = BUILD / "firmware"
MESON_NEEDED = (1, 5)
PROGRAMS = ["qemu-system-x86_64", "qemu-img", "qemu-io", "qemu-nbd"]

# To configure and to compile QEMU takes as much of a CPU as to compile this
# file so often; the first on one CPU, the second on all of them.
PROBE = ROOT / "tests/guest/work.c"
CONFIGURE_PROBES = 200
COMPILE_PROBES = 3700

# Where the firmware is: first Debian's packages, then what we assemble.
FIRMWARE_DIRS = ["/usr/share/seabios", "/usr/lib/ipxe/qemu",
                 "/usr/share/qemu"]

FEATURES = """
    --target-list=x86_64-softmmu --without-default-features
    --enable-system --enable-kvm --enable-tcg --enable-tools
    --enable-gnutls --enable-linux-aio --enable-linux-io-uring
    --enable-slirp --enable-pixman --enable-replication --enable-fdt=system
    --enable-cap-ng --enable-coroutine-pool --enable-zstd
    --disable-install-blobs --disable-download --disable-docs
""".split()


@dataclass(frozen=True)
class Variant:
    """One way to compile QEMU: directory name, source tree, options."""

    name: str
    tree: Path = source.SOURCE
    cc: str = "gcc"
    cxx: str = "g++"
    options: tuple[str, ...] = ("--enable-werror",)
    packages: tuple[str, ...] = ()
    flag: str = ""              # a compiler flag that must come into use
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def dir(self) -> Path:
        """The build directory."""
        return BUILD / self.name


VARIANTS = {variant.name: variant for variant in [
    Variant("patched"),
    Variant("stock", tree=source.STOCK, options=("--disable-werror",)),
    Variant("asan", options=("--enable-werror", "--enable-asan",
                             "--enable-ubsan"),
            environment={"ASAN_OPTIONS": "detect_leaks=1:abort_on_error=1",
                         "UBSAN_OPTIONS": "halt_on_error=1:"
                                          "abort_on_error=1:"
                                          "print_stacktrace=1"}),
    Variant("tsan", options=("--enable-werror", "--enable-tsan"),
            environment={"TSAN_OPTIONS": "halt_on_error=0:exitcode=66:"
                                         "die_after_fork=0"}),
    # The first clang that understands lock guards; older ones, and so QEMU
    # with them, leave out the analysis for which this variant is there.
    Variant("clang", cc="clang-19", cxx="clang++-19", packages=("clang-19",),
            flag="-Wthread-safety"),
]}


def version_tuple(text: str) -> tuple[int, ...]:
    """Return (1, 7) for '1.7.0', () if @text holds no version."""
    found = re.match(r"(\d+)\.(\d+)", text.strip())
    return tuple(map(int, found.groups())) if found else ()


def system_meson() -> tuple[int, ...]:
    """Return the version of the meson that /usr/bin/python3 imports."""
    done = subprocess.run(
        ["/usr/bin/python3", "-c",
         "import importlib.metadata as m; print(m.version('meson'))"],
        check=False, text=True, capture_output=True, cwd="/")
    return version_tuple(done.stdout)


def add_meson(site_packages: Path) -> None:
    """Put Debian 13's meson into the directory @site_packages."""
    archive = debian.Archive()
    archive.update()
    where = BUILD / "meson-deb"
    shutil.rmtree(where, ignore_errors=True)
    where.mkdir(parents=True)
    archive.download_binary("meson", where)
    for deb in where.glob("meson_*.deb"):
        run(["dpkg-deb", "--extract", deb, where])
    for path in (where / "usr/lib/python3/dist-packages").glob("meson*"):
        shutil.copytree(path, site_packages / path.name)
    shutil.rmtree(where)


def meson_python() -> Path:
    """
    Return a Python interpreter that has a meson new enough for QEMU.

    It is that of a virtual environment over Debian's Python; meson comes
    from Debian 13 if this machine's is too old.
    """
    python = MESON_ENV / "bin/python3"
    if python.exists():
        return python
    partial = MESON_ENV.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    run(["/usr/bin/python3", "-m", "venv", "--system-site-packages",
         "--without-pip", partial])
    if system_meson() < MESON_NEEDED:
        add_meson(next(partial.glob("lib/python3*/site-packages")))
    partial.rename(MESON_ENV)
    return python


def release() -> str:
    """
    Return the name and the version of what this repository makes.

    qemu-wsm 0.4 is the one that speaks version 4 of its protocol, and says so
    when two hosts do not go together.
    """
    header = (ROOT / "migration/wsm/wire/message.h").read_text(encoding="utf-8")
    found = re.search(r"#define WSM_PROTOCOL_VERSION\s+(\d+)", header)
    if not found:
        raise Failure("migration/wsm/wire/message.h has no WSM_PROTOCOL_VERSION")
    return f"qemu-wsm 0.{found[1]}"


def package_version(variant: Variant, version: str) -> str:
    """
    Return what this QEMU says it is, with --version and in query-version.

    @version is that of Debian's source package.
    """
    package = f"Debian {version}"
    if variant.tree == source.STOCK:
        return package
    return f"{release()}, {package}"


def set_package_version(variant: Variant, package: str) -> None:
    """Change what a configured @variant says it is, if it says otherwise."""
    stamp = variant.dir / ".package"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == package:
        return
    output([variant.dir / "pyvenv/bin/meson", "configure",
            f"-Dpkgversion={package}", variant.dir])
    stamp.write_text(package, encoding="utf-8")


def configure(variant: Variant) -> None:
    """Configure @variant unless its build directory is set up the same way."""
    compiler = variant.cc
    if shutil.which("ccache"):
        compiler = f"ccache {compiler}"
    cmd = [str(variant.tree / "configure"), f"--python={meson_python()}",
           *FEATURES, f"--cc={compiler}", f"--cxx={variant.cxx}",
           "--firmwarepath=" + ":".join(FIRMWARE_DIRS), *variant.options]
    stamp = variant.dir / ".configured"
    text = shlex.join(cmd)
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == text:
        return
    say(f"configuring {variant.name}")
    shutil.rmtree(variant.dir, ignore_errors=True)
    variant.dir.mkdir(parents=True)
    log = variant.dir / "configure.log"
    with log.open("w", encoding="utf-8") as stream:
        status = subprocess.run(cmd, check=False, cwd=variant.dir,
                                stdin=subprocess.DEVNULL, stdout=stream,
                                stderr=subprocess.STDOUT).returncode
    if status:
        tail = "".join(log.open(encoding="utf-8").readlines()[-15:])
        raise Failure(f"QEMU's configure failed; the end of {log}:\n{tail}")
    rules = (variant.dir / "build.ninja").read_text(encoding="utf-8")
    if variant.flag not in rules:
        raise Failure(f"QEMU's configure does not use {variant.flag} with "
                      f"{variant.cc}, see {variant.dir}/meson-logs")
    stamp.write_text(text, encoding="utf-8")


def jobs() -> int:
    """Return how many compilers may run at once: $JOBS, else all CPUs."""
    return int(os.environ.get("JOBS") or os.cpu_count() or 1)


def ninja(variant: Variant, targets: Iterable[str]) -> None:
    """Compile @targets of @variant; the caller holds the build lock."""
    run(["ninja", "-C", variant.dir, f"-j{jobs()}", *targets])


def probe_seconds() -> float:
    """Return the CPU time that compiling PROBE takes on this machine."""
    before = os.times()
    run(["gcc", "-O2", "-g", "-c", "-o", os.devnull, PROBE])
    after = os.times()
    return (after.children_user + after.children_system
            - before.children_user - before.children_system)


def first_build_minutes(probe: float, cpus: int) -> float:
    """Return how long the first build takes on @cpus idle CPUs."""
    return probe * (CONFIGURE_PROBES + COMPILE_PROBES / cpus) / 60


def announce(variant: Variant) -> None:
    """Say what the first build of @variant takes."""
    if (variant.dir / ".configured").exists():
        return
    cpus = min(jobs(), os.cpu_count() or 1)
    minutes = first_build_minutes(probe_seconds(), cpus)
    say(f"first build of {variant.name}: about {max(1, round(minutes))} "
        f"minutes on {cpus} idle CPUs, less if ccache knows the files; "
        "later builds compile only what has changed")


def build_option_roms() -> None:
    """
    Assemble QEMU's option ROMs, which '-kernel' and KVM guests need.

    QEMU's configure would do that only with a 32-bit libgcc, which Debian
    does not install by default and which the ROMs do not use.
    """
    roms = source.STOCK / "pc-bios/optionrom"
    FIRMWARE.mkdir(parents=True, exist_ok=True)
    link(FIRMWARE / "Makefile", roms / "Makefile")
    write_if_changed(FIRMWARE / "config.mak", (
        f"TOPSRC_DIR={source.STOCK}\nCC=gcc\nOBJCOPY=objcopy\n"
        "PYTHON=/usr/bin/python3\n").encode())
    output(["make", "-C", FIRMWARE, "-s"])


def link_firmware(variant: Variant) -> None:
    """Let programs run from @variant's build directory find the firmware."""
    bundle = variant.dir / "qemu-bundle"
    for path in FIRMWARE_DIRS[:2]:
        link(bundle / path.lstrip("/"), path)
    for rom in FIRMWARE.glob("*.bin"):
        link(bundle / "usr/share/qemu" / rom.name, rom)


def link_results(variant: Variant) -> None:
    """Make build/qemu-system-x86_64 etc. stand for those of @variant."""
    for name in PROGRAMS:
        link(BUILD / name, Path(variant.name, name))


def build(name: str = "patched", targets: Sequence[str] = (),
          update: bool = False) -> Variant:
    """
    Compile @targets (QEMU's programs by default) of the variant @name.

    Everything before that, from the Debian packages on, is done if it is
    not done yet.  Returns the Variant.
    """
    variant = VARIANTS[name]
    os.environ.pop("PYTHONPATH", None)      # could hide the right meson
    # Let all build directories share what the compiler cache has
    os.environ.setdefault("CCACHE_NOHASHDIR", "1")
    os.environ.setdefault("CCACHE_BASEDIR", str(ROOT))
    with build_lock():
        debian.install(debian.PACKAGES + list(variant.packages))
        announce(variant)
        version = source.prepare(update, variant.tree == source.SOURCE)
        configure(variant)
        set_package_version(variant, package_version(variant, version))
        build_option_roms()
        say(f"compiling {name} (QEMU {version})")
        begin = time.monotonic()
        ninja(variant, targets or PROGRAMS)
        say(f"compiled in {time.monotonic() - begin:.0f} s")
        link_firmware(variant)
        if name == "patched" and not targets:
            link_results(variant)
    return variant


def build_files(variant: Variant, paths: Iterable[Path | str]) -> None:
    """Compile the files @paths of @variant, which build() has set up."""
    with build_lock():
        ninja(variant, [os.path.relpath(path, variant.dir) for path in paths])


def introspect(variant: Variant, what: str) -> list[dict[str, Any]]:
    """Return meson's description of @variant: what = 'tests', 'targets'."""
    path = variant.dir / f"meson-info/intro-{what}.json"
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return found
