# SPDX-License-Identifier: GPL-2.0-or-later
"""What we change in Debian's own packaging of QEMU, as edits of text.

Patches would need their context refreshed with each of Debian's uploads.
These edits look for the one line that they are about.  If it is not there
once, Debian has changed what the edit was for: somebody has to look.
"""

import re

from dev.common import Failure

# Only the x86 targets: a tenth of the time that all take
X86_ONLY = "pkg.qemu.x86-only"
# System emulators that are not built then, and what depends on all of them
OTHERS = ("qemu-system", "qemu-system-misc", "qemu-system-arm",
          "qemu-system-mips", "qemu-system-ppc", "qemu-system-riscv",
          "qemu-system-s390x", "qemu-system-sparc")
# What must be of the same build as qemu-system-common and has no dependency
# that says so: modules are refused by another build, and qemu-img goes with
# the images that QEMU writes
TOGETHER = ("qemu-block-extra", "qemu-utils")
PIN = "qemu-wsm-pin"

TARGETS = f"""\
# Only the x86 targets
ifneq (,$(filter {X86_ONLY},${{DEB_BUILD_PROFILES}}))
system-packages := x86
QEMU_CONFIGURE_OPTIONS += --target-list=i386-softmmu,x86_64-softmmu
endif

"""


def replaced(text: str, pattern: str, new: str, where: str) -> str:
    """Return @text with what matches @pattern, once, replaced by @new."""
    result, count = re.subn(pattern, new, text, flags=re.M)
    if count != 1:
        raise Failure(f"Debian's {where} has {count} times what matches "
                      f"'{pattern}', not once: its packaging has changed; "
                      "see scripts/dev/package/control.py")
    return result


def stanza(text: str, package: str) -> tuple[int, int]:
    """Return where the lines about @package begin and end."""
    found = list(re.finditer(f"^Package: {re.escape(package)}$", text, re.M))
    if len(found) != 1:
        raise Failure(f"Debian's control-in has {len(found)} packages "
                      f"{package}: its packaging has changed; see "
                      "scripts/dev/package/control.py")
    begin = found[0].start()
    end = text.find("\nPackage: ", begin)
    return begin, len(text) if end < 0 else end


def in_stanza(text: str, package: str, pattern: str, new: str) -> str:
    """Like replaced(), in the lines about @package only."""
    begin, end = stanza(text, package)
    return (text[:begin]
            + replaced(text[begin:end], pattern, new, f"package {package}")
            + text[end:])


def control_in(text: str, maintainer: str,
               without: tuple[str, ...] = ()) -> str:
    """
    Return Debian's control-in with our changes.

    Features @without a library are not built; that they are comes from the
    comment in front of the library.
    """
    for feature in without:
        text = replaced(text, rf"^# --enable-{feature}\b.*\n lib.*,\n", "",
                        "control-in")
    for package in OTHERS:
        text = in_stanza(text, package,
                         r"^(Build-Profiles: <!pkg\.qemu\.omit-system)>$",
                         rf"\1 !{X86_ONLY}>")
    breaks = "".join(f" {name} ({sign} ${{binary:Version}}),\n"
                     for name in TOGETHER for sign in ("<<", ">>"))
    text = in_stanza(text, "qemu-system-common",
                     r"^Breaks: (libvirt-daemon .*\))$",
                     rf"Recommends: {PIN}\nBreaks: \1,\n{breaks.rstrip()}")
    # Users turn to us.  The field that Ubuntu has for whose work it was is
    # unknown to Debian.
    return replaced(text, r"^:debian:Maintainer: (.*)$",
                    r":debian:# Debian's package is that of: \1\n"
                    f":debian:Maintainer: {maintainer}", "control-in")


def control_mk(text: str) -> str:
    """Return Debian's control.mk with our changes."""
    return replaced(text, r"^(# Host architectures we produce packages for\.)$",
                    TARGETS.replace("\\", r"\\") + r"\1", "control.mk")


def rules(text: str, release: str) -> str:
    """
    Return Debian's rules with our changes; @release is of qemu-wsm.

    Each emulator says what it is, with --version and as a package; and one
    of them being built is what tells that emulators are built at all.
    """
    text = replaced(text, r"^(enable-system = .*filter qemu-system),",
                    r"\1-x86,", "rules")
    text = replaced(text, r"^PKGVERSION = (Debian .*)$",
                    rf"PKGVERSION = {release}, \1", "rules")
    return replaced(text, r"^(echo 'qemu:Provides=)",
                    r"\1qemu-wsm (=${DEB_VERSION})${comma} ", "rules")
