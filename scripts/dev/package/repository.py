# SPDX-License-Identifier: GPL-2.0-or-later
"""The signed apt repository that packages are installed from.

    build/package/repository      to be served as it is, or used by file:
      qemu-wsm.gpg                  the key that it is signed with
      dists/SUITE, pool/SUITE       as in any repository
    build/package/gnupg           the secret key; never in the repository
"""

import os
import shutil
import subprocess
from pathlib import Path

from dev import debian
from dev.common import Failure, output, run, say
from dev.package import debsource, versions
from dev.package.versions import Suite

FOLDER = debsource.FOLDER / "repository"
KEYS = debsource.FOLDER / "gnupg"
KEY_FILE = FOLDER / "qemu-wsm.gpg"
ORIGIN = "qemu-wsm"
ARCHITECTURE = "amd64"
SOURCES = "etc/apt/sources.list.d/qemu-wsm.sources"      # in a root
# By-products: same source, nothing of ours in them
LEFT_OUT = ("qemu-guest-agent_",)
RELEASE = {
    "Origin": ORIGIN,
    "Label": ORIGIN,
    "Architectures": ARCHITECTURE,
    "Components": "main",
    "Description": "QEMU with whole-system migration",
}


def gpg(*words: object) -> list[str]:
    """Return the command line of gpg with our keys."""
    return ["gpg", "--batch", "--quiet", "--yes", "--homedir", str(KEYS),
            *map(str, words)]


def key() -> str:
    """
    Return the fingerprint of the key to sign with; make it if there is none.

    Whoever wants another key puts one into build/package/gnupg.
    """
    KEYS.mkdir(mode=0o700, parents=True, exist_ok=True)

    def known() -> list[str]:
        lines = output(gpg("--with-colons", "--list-secret-keys"))
        return [line.split(":")[9] for line in lines.splitlines()
                if line.startswith("fpr:")]

    if not known():
        say("making a key that signs the repository")
        output(gpg("--passphrase", "", "--quick-generate-key",
                   debsource.maintainer(), "ed25519", "sign", "never"))
    return known()[0]


def pool(suite: Suite) -> Path:
    """Return the folder with the packages for @suite."""
    return FOLDER / "pool" / suite.name


def fill_pool(suite: Suite, debs: Path, copies: list[Path]) -> None:
    """Make pool/SUITE hold what is in @debs, and @copies."""
    where = pool(suite)
    shutil.rmtree(where, ignore_errors=True)
    where.mkdir(parents=True)
    for path in [*sorted(debs.iterdir()), *copies]:
        if (path.name.endswith((".deb", ".dsc")) or ".tar." in path.name) \
                and not path.name.startswith(LEFT_OUT):
            shutil.copy(path, where)


def write_index(path: Path, text: str) -> None:
    """Write an index of packages, plain and compressed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    run(["xz", "--keep", "--force", path])


def sign(dists: Path, suite: Suite) -> None:
    """Write the signed list of the indices below @dists."""
    options = {**RELEASE, "Suite": suite.name, "Codename": suite.name}
    words = [word for name, value in options.items()
             for word in ("-o", f"APT::FTPArchive::Release::{name}={value}")]
    text = output(["apt-ftparchive", *words, "release", dists])
    (dists / "Release").write_text(text, encoding="utf-8")
    fingerprint = key()
    run(gpg("--local-user", fingerprint, "--clearsign",
            "--output", dists / "InRelease", dists / "Release"))
    run(gpg("--local-user", fingerprint, "--armor", "--detach-sign",
            "--output", dists / "Release.gpg", dists / "Release"))
    run(gpg("--output", KEY_FILE, "--export", fingerprint))
    KEY_FILE.chmod(0o644)


def publish(suite: Suite, debs: Path, copies: list[Path]) -> None:
    """Make the repository's part for @suite hold @debs and @copies."""
    debian.install(["apt-utils", "gnupg", "xz-utils"])
    fill_pool(suite, debs, copies)
    dists = FOLDER / "dists" / suite.name
    shutil.rmtree(dists, ignore_errors=True)
    names = pool(suite).relative_to(FOLDER)
    write_index(dists / f"main/binary-{ARCHITECTURE}/Packages",
                output(["apt-ftparchive", "packages", names], cwd=FOLDER))
    write_index(dists / "main/source/Sources",
                output(["apt-ftparchive", "sources", names], cwd=FOLDER))
    sign(dists, suite)
    subprocess.run(["gpgconf", "--kill", "all"], check=False,
                   env={**os.environ, "GNUPGHOME": str(KEYS)})
    say(f"{suite.name}: the repository is {FOLDER}, its key {KEY_FILE}")


def sources_entry(suite: Suite, where: str, keyring: str) -> str:
    """Return apt's entry for the repository at the address @where."""
    return (f"Types: deb\nURIs: {where}\nSuites: {suite.name}\n"
            f"Components: main\nArchitectures: {ARCHITECTURE}\n"
            f"Signed-By: {keyring}\n")


def add_to(tree: Path, suite: Suite) -> None:
    """Tell apt in the root @tree of the repository, which is /shared there."""
    (tree / SOURCES).write_text(
        sources_entry(suite, "file:/shared", f"/shared/{KEY_FILE.name}"),
        encoding="utf-8")


def version(suite: Suite) -> str | None:
    """Return the version of QEMU that the repository has for @suite."""
    index = (FOLDER / "dists" / suite.name / "main"
             / f"binary-{ARCHITECTURE}/Packages")
    if not index.is_file():
        return None
    return version_in(index.read_text(encoding="utf-8"), "qemu-system-x86")


def version_in(index: str, package: str) -> str:
    """Return the version of @package in the text of an index."""
    for paragraph in index.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines()
                      if ": " in line)
        if fields.get("Package") == package:
            return fields["Version"]
    raise Failure(f"the repository has no package {package}")


def what_is_old(ours: dict[str, str | None], newest: str) -> list[str]:
    """
    Return a line for each suite that is not made from @newest of Debian's.

    @ours is {suite: version in the repository, None if it has none}.
    """
    lines = []
    for suite, present in ours.items():
        if present is None:
            lines.append(f"{suite}: no packages yet")
        elif (base := versions.base_of(present)) != newest:
            lines.append(f"{suite}: made from Debian's {base}, which has "
                         f"{newest} now")
    return lines
