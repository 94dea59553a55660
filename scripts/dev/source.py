# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's source: fetched, unpacked, and with our files and hooks laid over.

    build/downloads      Debian's source package, kept
    build/stock-source   unpacked, never changed after that
    build/hooks          the few files that patches/ touch, under quilt
    build/qemu-source    stock + overlay + hooks: what is compiled
    build/python         QEMU's own package qemu.qmp, which wsm-agent imports

build/qemu-source is brought up to date file by file: a file whose content
is right keeps its time stamp.
"""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path

from dev.common import (BUILD, DOWNLOADS, ROOT, Failure, output, run, say,
                        write_if_changed)
from dev.debian import Archive, newest

BASE = "10.0."
STOCK = BUILD / "stock-source"
SOURCE = BUILD / "qemu-source"
HOOKS = BUILD / "hooks"
Manifest = dict[str, str | None]                 # path: SHA-256
MANIFEST = BUILD / "qemu-source.json"
PYTHON = BUILD / "python"
PATCHES = ROOT / "patches"

# Directories of this repository whose files go to the same path in QEMU.
OVERLAY = ["block", "hw", "include", "migration", "qapi",
           "tests/unit/wsm", "tests/fuzz"]
SKIPPED = re.compile(r"__pycache__|.*\.(orig|rej|pyc|swp)|.*~|\..*")


def upstream_version(version: str) -> str:
    """Return the version without Debian's epoch: 1:10.0.13+ds -> 10.0.13+ds."""
    return version.split(":", 1)[-1]


def dsc_version(path: Path) -> str:
    """Return the version that the .dsc file @path describes."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("Version:"):
            return line.split()[1]
    raise Failure(f"{path}: not a Debian source package; delete it")


def complete(dsc: Path) -> bool:
    """Return whether every file that @dsc lists lies beside it."""
    text = dsc.read_text(encoding="utf-8").split("Checksums-Sha256:", 1)[-1]
    names = re.findall(r"^ [0-9a-f]{64} \d+ (\S+)$", text, re.M)
    return bool(names) and all((dsc.parent / name).is_file()
                               for name in names)


def downloaded() -> Path | None:
    """Return the .dsc of the newest complete QEMU 10.0.*, None if none."""
    found = {dsc_version(path): path
             for path in DOWNLOADS.glob(f"qemu_{BASE}*.dsc")
             if complete(path)}
    best = newest(found)
    return found[best] if best else None


def latest(archive: Archive) -> str | None:
    """Return the version of Debian's newest QEMU 10.0.*, None if none."""
    return newest(version for version in archive.source_versions("qemu")
                  if upstream_version(version).startswith(BASE))


def download() -> Path:
    """Fetch the newest QEMU 10.0.* of Debian 13; return its .dsc."""
    archive = Archive()
    archive.update()
    version = latest(archive)
    if version is None:
        raise Failure(f"Debian's archive has no QEMU {BASE}*; put the files "
                      "of such a source package into build/downloads")
    DOWNLOADS.mkdir(parents=True, exist_ok=True)
    say(f"fetching QEMU {version}")
    archive.download_source("qemu", version, DOWNLOADS)
    dsc = downloaded()
    if dsc is None or dsc_version(dsc) != version:
        raise Failure(f"apt did not fetch QEMU {version} completely")
    return dsc


def fetch(update: bool = False) -> Path:
    """Return the .dsc to build from, from the cache unless @update."""
    return (None if update else downloaded()) or download()


def unpack(dsc: Path) -> str:
    """
    Make build/stock-source the content of @dsc.

    dpkg-source compares the checksums and applies Debian's own patches.
    A change of version drops the build directories: unpacked files carry
    upstream's old time stamps, which ninja would take for unchanged.
    """
    version = dsc_version(dsc)
    stamp = STOCK / ".debian-version"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == version:
        return version
    say(f"unpacking QEMU {version}")
    for name in ("stock-source", "qemu-source", "stock", "patched", "asan",
                 "tsan", "clang", "firmware", "hooks"):
        shutil.rmtree(BUILD / name, ignore_errors=True)
    MANIFEST.unlink(missing_ok=True)
    partial = BUILD / "stock-source.partial"
    shutil.rmtree(partial, ignore_errors=True)
    output(["dpkg-source", "--no-copy", "--extract", dsc, partial])
    shutil.rmtree(partial / ".pc", ignore_errors=True)
    (partial / ".debian-version").write_text(version, encoding="utf-8")
    partial.rename(STOCK)
    return version


def install_qmp() -> None:
    """
    Put QEMU's package qemu.qmp into build/python.

    The link scripts/qemu leads there, so that what is in scripts finds it.
    Without its programs, and what only these need.
    """
    package = STOCK / "python/qemu/qmp"
    for path in (*package.glob("*.py"), package / "py.typed"):
        if path.name not in ("legacy.py", "qmp_shell.py", "qmp_tui.py"):
            write_if_changed(PYTHON / "qemu/qmp" / path.name,
                             path.read_bytes())


def overlay_files() -> dict[str, Path]:
    """Return {path in QEMU's tree: file of this repository}."""
    files = {}
    for top in OVERLAY:
        for folder, folders, names in os.walk(ROOT / top):
            folders[:] = [n for n in folders if not SKIPPED.fullmatch(n)]
            for name in names:
                if SKIPPED.fullmatch(name):
                    continue
                path = Path(folder, name)
                files[str(path.relative_to(ROOT))] = path
    for name, path in files.items():
        if (STOCK / name).exists():
            raise Failure(f"{path.relative_to(ROOT)}: QEMU has this file; "
                          "change it by a hook in patches/ instead")
    return files


def series() -> list[str]:
    """Return the names of the patches in patches/series, in order."""
    path = PATCHES / "series"
    if not path.exists():
        return []
    lines = (line.split("#", 1)[0].split()
             for line in path.read_text(encoding="utf-8").splitlines())
    return [words[0] for words in lines if words]


def patched_files(names: list[str]) -> list[str]:
    """Return the paths, in QEMU's tree, that the patches @names touch."""
    files = set()
    for name in names:
        path = PATCHES / name
        if not path.is_file():
            raise Failure(f"patches/series lists '{name}', which is not there")
        files.update(re.findall(r"^(?:---|\+\+\+) [ab]/(\S+)",
                                path.read_text(encoding="utf-8"), re.M))
    return sorted(files)


def push_hooks(names: list[str], files: list[str]) -> None:
    """Apply the patches @names to copies of stock @files in build/hooks."""
    shutil.rmtree(HOOKS, ignore_errors=True)
    HOOKS.mkdir(parents=True)
    for name in files:
        if (STOCK / name).is_file():
            (HOOKS / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(STOCK / name, HOOKS / name)
    if not names:
        return
    try:
        run(["quilt", "--quiltrc=/dev/null", "push", "-a", "--fuzz=0", "-q"],
            cwd=HOOKS, env={**os.environ, "LC_ALL": "C", "QUILT_PC": ".pc",
                            "QUILT_PATCHES": str(PATCHES)})
    except Failure as error:
        raise Failure("a hook does not apply to this QEMU: in build/hooks, "
                      "'quilt push -f', mend the file, 'quilt refresh'"
                      ) from error


def hooked_files() -> dict[str, Path]:
    """
    Return {path in QEMU's tree: patched file below build/hooks}.

    build/hooks is an ordinary quilt tree: 'quilt edit' and 'quilt refresh'
    there change patches/.  It is made anew when patches/ differs from what
    it was made from.
    """
    names = series()
    files = patched_files(names)
    made_from = "".join(f"{name} {digest(PATCHES / name)}\n"
                        for name in names)
    stamp = HOOKS / ".made-from"
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != made_from:
        say(f"applying {len(names)} hooks")
        push_hooks(names, files)
        stamp.write_text(made_from, encoding="utf-8")
    return {name: HOOKS / name for name in files if (HOOKS / name).is_file()}


def digest(path: Path) -> str | None:
    """Return the SHA-256 of the file @path, None if there is none."""
    if not path.is_file():
        return None
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_manifest() -> Manifest:
    """Return {path: SHA-256} of what the last compose() put in the tree."""
    if not MANIFEST.exists():
        return {}
    manifest: Manifest = json.loads(MANIFEST.read_text(encoding="utf-8"))
    return manifest


def refuse_lost_edits(wanted: dict[str, Path], manifest: Manifest) -> None:
    """Raise Failure if compose() would overwrite an edit made in the tree."""
    for name, old in manifest.items():
        now = digest(SOURCE / name)
        right = digest(wanted.get(name, STOCK / name))
        if now in (None, old, right):
            continue
        raise Failure(f"build/qemu-source/{name} was changed there: bring "
                      "the change into the overlay or into patches/, then "
                      "delete that file")


def compose() -> None:
    """Bring build/qemu-source up to date with stock, overlay and patches."""
    if not SOURCE.exists():
        partial = BUILD / "qemu-source.partial"
        shutil.rmtree(partial, ignore_errors=True)
        run(["cp", "-a", "--reflink=auto", STOCK, partial])
        partial.rename(SOURCE)
    overlay, hooked = overlay_files(), hooked_files()
    for name in overlay.keys() & hooked.keys():
        raise Failure(f"{name}: both in the overlay and in patches/")
    wanted = {**overlay, **hooked}
    manifest = read_manifest()
    refuse_lost_edits(wanted, manifest)

    changed = [name for name, path in sorted(wanted.items())
               if write_if_changed(SOURCE / name, path.read_bytes(),
                                   path.stat().st_mode & 0o755 | 0o644)]
    for name in sorted(manifest.keys() - wanted.keys()):
        changed.append(name)
        if (STOCK / name).is_file():
            write_if_changed(SOURCE / name, (STOCK / name).read_bytes(),
                             (STOCK / name).stat().st_mode & 0o777)
        else:
            (SOURCE / name).unlink(missing_ok=True)
    if changed:
        say(f"changed in build/qemu-source: {' '.join(changed)}")
    MANIFEST.write_text(json.dumps(
        {name: digest(path) for name, path in wanted.items()},
        indent=1, sort_keys=True), encoding="utf-8")


def prepare(update: bool = False, compose_tree: bool = True) -> str:
    """
    Fetch and unpack what is not there yet; return QEMU's version.

    The caller holds the build lock.
    """
    version = unpack(fetch(update))
    install_qmp()
    if compose_tree:
        compose()
    return version
