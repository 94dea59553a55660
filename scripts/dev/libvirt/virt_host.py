# SPDX-License-Identifier: GPL-2.0-or-later
"""A host with libvirt: a root with namespaces and daemons of its own."""

import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from dev.kvm import libraries
from dev.rig.basics import QEMU, TestFailure, require, tool, wait_until
from dev.rig.host import Host

IMAGES = "/var/lib/libvirt/images"
ENVIRONMENT = {"HOME": "/root", "LANG": "C.UTF-8", "LC_ALL": "C",
               "PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
# Where Debian's QEMU looks for firmware, too
FIRMWARE = ("usr/share/seabios", "usr/lib/ipxe/qemu")
DAEMON_PIDS = {"libvirtd": "/run/libvirtd.pid", "virtlogd": "/run/virtlogd.pid"}

# $1 is the host's folder, $2 the root below it, $3 its name.  What is above
# the root lies in the folder; images lie in a plain folder, not in an overlay.
# QEMU may use post-copy for memory if $5 is not empty: on a real host that is
# vm.unprivileged_userfaultfd, which is one for the whole machine.
# The last shell is the first process there, and so buries daemons' children.
ENTER = """
mount --make-rprivate /
hostname "$3"
cd "$1"
mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" top
mount --bind images top/var/lib/libvirt/images
mount --bind "$4" top/srv
mount --bind net top/mnt
mount --rbind /dev top/dev
if [ -c /dev/userfaultfd ] && [ -n "$5" ]; then
    mknod -m 666 userfaultfd c $(stat -c "0x%t 0x%T" /dev/userfaultfd)
    mount --bind userfaultfd top/dev/userfaultfd
fi
mount -t proc proc top/proc
mount -t sysfs sysfs top/sys
mount -t tmpfs tmpfs top/run
mount -t tmpfs tmpfs top/tmp
cd top
exec env -i {environment} chroot . /bin/sh -euc '
mkdir -p /run/sshd /run/libvirt
touch /run/up
while true; do
    sleep 1d & wait
done
'
"""

# Both hosts are one machine: they have no cgroups of their own, and devices
# cannot be made for each guest
QEMU_CONF = """
cgroup_controllers = []
namespaces = []
"""
SSH_CONFIG = """\
Host *
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
    LogLevel ERROR
"""


def put(path: Path, target: Path) -> None:
    """Make @target the file @path, without a copy if that is possible."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        return
    try:
        os.link(path.resolve(), target)
    except OSError:
        shutil.copy(path, target)


@dataclass
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str

    def text(self) -> str:
        """Return all that it said."""
        return f"{self.out.strip()}\n{self.err.strip()}".strip()


class VirtHost:
    """A host; start() and close() it."""

    def __init__(self, name: str, net: Host, tree: Path, folder: Path,
                 shared: Path, packaged: bool = False) -> None:
        self.name = name
        self.net = net
        self.tree = tree
        self.folder = folder
        self.shared = shared
        self.packaged = packaged        # the root has the tested QEMU
        self.userfaultfd = True         # QEMU may use it
        self.process: Optional["subprocess.Popen[bytes]"] = None

    @property
    def uri(self) -> str:
        """Return how the other host reaches this one's libvirt."""
        return f"qemu+ssh://{self.name}/system"

    @property
    def top(self) -> Path:
        """Return what is the root folder in there."""
        return self.folder / "upper"

    @property
    def images(self) -> Path:
        """Return the folder with its images, as seen from outside."""
        return self.folder / "images"

    @property
    def net_folder(self) -> Path:
        """Return the folder for sockets of network cards; /mnt in there."""
        return self.folder / "net"

    # Life

    def start(self, names: dict[str, str]) -> None:
        """Start it; @names are the hosts' names and addresses."""
        for name in ("upper", "work", "top", "images", "net"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.images.chmod(0o711)
        self.net_folder.chmod(0o777)
        self.configure(names)
        if not self.packaged:
            self.put_qemu()
        environment = " ".join(f"{key}={value}"
                               for key, value in ENVIRONMENT.items())
        with open(self.folder / "host.log", "wb") as log:
            # pylint: disable-next=consider-using-with
            self.process = subprocess.Popen(
                [*self.net.prefix(), "unshare", "--mount", "--uts", "--ipc",
                 "--pid", "--fork", "--kill-child", "sh", "-euc",
                 ENTER.format(environment=environment), "sh",
                 str(self.folder), str(self.tree), self.name,
                 str(self.shared), "yes" * self.userfaultfd],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(self.is_up, f"{self.name} is up")
        self.check("ldconfig")
        self.check("/usr/sbin/sshd")
        self.check("virtlogd", "-d", "-p", DAEMON_PIDS["virtlogd"])
        self.start_libvirtd()

    def is_up(self) -> bool:
        """Return whether its root is there."""
        require(self.process and self.process.poll() is None,
                f"{self.name} did not start: "
                + (self.folder / "host.log").read_text())
        return (self.outside_pid() != 0
                and self.run("test", "-e", "/run/up").status == 0)

    def configure(self, names: dict[str, str]) -> None:
        """Write what differs from a Debian just installed."""
        etc, home = self.top / "etc", self.top / "root"
        hosts = "".join(f"{address} {name}\n"
                        for name, address in names.items())
        (etc / "libvirt").mkdir(parents=True, exist_ok=True)
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n{hosts}")
        (etc / "hostname").write_text(f"{self.name}\n")
        shutil.copy(self.tree / "etc/libvirt/qemu.conf", etc / "libvirt")
        with open(etc / "libvirt/qemu.conf", "a", encoding="utf-8") as conf:
            conf.write(QEMU_CONF)
        ssh = home / ".ssh"
        home.mkdir(mode=0o700)
        ssh.mkdir(mode=0o700)
        (ssh / "config").write_text(SSH_CONFIG)
        for name, copy in (("key", "id_ed25519"),
                           ("key.pub", "authorized_keys")):
            shutil.copy(self.shared / name, ssh / copy)
            (ssh / copy).chmod(0o600)

    def put_qemu(self) -> None:
        """Replace Debian's QEMU by the tested one, and what it needs."""
        programs = {"qemu-system-x86_64": QEMU.resolve(),
                    "qemu-img": Path(tool("qemu-img")).resolve()}
        present = {path.name for path in self.tree.glob("usr/lib/**/*")}
        for name, path in programs.items():
            put(path, self.top / "usr/bin" / name)
            for library in libraries(path):
                if library.name not in present:
                    put(library, self.top / "usr/local/lib" / library.name)
        for folder in FIRMWARE:
            for path in (self.tree / folder).glob("*.*"):
                put(path, self.top / "usr/share/qemu" / path.name)

    def start_libvirtd(self) -> None:
        """Start libvirtd and wait until it answers."""
        self.check("libvirtd", "-d", "-p", DAEMON_PIDS["libvirtd"])
        wait_until(lambda: self.virsh("version").status == 0,
                   f"{self.name}: libvirtd answers")

    def stop_libvirtd(self) -> None:
        """End libvirtd; guests run on."""
        pid = self.check("cat", DAEMON_PIDS["libvirtd"]).strip()
        self.check("kill", pid)
        wait_until(lambda: self.run("kill", "-0", pid).status != 0,
                   f"{self.name}: libvirtd ends")

    def close(self) -> None:
        """End all that runs there."""
        if self.process:
            self.process.kill()
            self.process.wait()

    # Commands

    def outside_pid(self) -> int:
        """Return the number outside of its first process, 0 if none."""
        assert self.process
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}"
                        "/children").read_text(encoding="ascii")
        return int((children.split() or ["0"])[0])

    def words(self, *words: object) -> list[str]:
        """Return the command that runs @words there."""
        return ["nsenter", "--target", str(self.outside_pid()), "--mount", "--uts",
                "--ipc", "--net", "--pid", "--root", "--wd", "env", "-i",
                *(f"{key}={value}" for key, value in ENVIRONMENT.items()),
                *map(str, words)]

    def run(self, *words: object) -> Done:
        """Run a command there."""
        done = subprocess.run(self.words(*words), check=False, text=True,
                              errors="replace", stdin=subprocess.DEVNULL,
                              capture_output=True)
        return Done(done.returncode, done.stdout, done.stderr)

    def check(self, *words: object) -> str:
        """Run a command there that must succeed; return what it prints."""
        done = self.run(*words)
        if done.status:
            raise TestFailure(f"{self.name}: {shlex.join(map(str, words))}: "
                              f"status {done.status}: {done.text()}")
        return done.out

    def virsh(self, *words: object) -> Done:
        """Run virsh there."""
        return self.run("virsh", "-q", *words)

    def popen(self, *words: object) -> "subprocess.Popen[str]":
        """Start a command there."""
        return subprocess.Popen(self.words(*words), text=True,
                                errors="replace", stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT)
