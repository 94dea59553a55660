# SPDX-License-Identifier: GPL-2.0-or-later
"""agent.toml: what an agent is told about its host."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Mapping

from wsm.plan import toml
from wsm.plan.inventory import RESERVE
from wsm.plan.plain import BadData
from wsm.plan.spec import ID, check_memory


@dataclass(frozen=True)
class Tls:
    """Files of the agent's certificate."""

    ca: str
    cert: str
    key: str


@dataclass(frozen=True)
class Migration:
    """Where migrations come in."""

    addr: str = ""
    ports: tuple[int, int] = (47000, 47099)
    mbit: int = 0
    memory: tuple[str, ...] = ()        # see spec.Move
    disk_packing: bool = False


@dataclass(frozen=True)
class Pool:
    """A folder of images."""

    path: str
    reserve: float = RESERVE


@dataclass(frozen=True)
class Network:
    """A bridge."""

    bridge: str


@dataclass(frozen=True)
class Folders:
    """Where files are."""

    etc: str = "/etc/wsm"
    state: str = "/var/lib/wsm"
    run: str = "/run/wsm"


@dataclass(frozen=True)
class Root:
    """What of the host is for VMs."""

    cores: float = 0.0          # 0: all
    at: str = "/"               # whose CPU time counts: "/" all, "vms" VMs'
    reserve_cpu: float = 0.05
    reserve_mem: float = 0.08
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Config:
    """All of it."""

    host: str
    listen: str = ""            # address:port
    cluster: str = "wsm"
    tls: Tls = Tls("/etc/wsm/ca.pem", "/etc/wsm/agent.pem",
                   "/etc/wsm/agent.key")
    migration: Migration = Migration()
    qemu: Mapping[str, str] = field(default_factory=dict)
    qemu_img: str = "qemu-img"
    pool: Mapping[str, Pool] = field(default_factory=dict)
    network: Mapping[str, Network] = field(default_factory=dict)
    ports: tuple[int, int] = (5900, 5999)
    folders: Folders = Folders()
    root: Root = Root()
    allow_host_cpu: bool = False
    qemu_compat: tuple[str, ...] = ()

    @property
    def run(self) -> Path:
        """The folder for what a reboot takes away."""
        return Path(self.folders.run)

    @property
    def state(self) -> Path:
        """The folder for what must outlive everything."""
        return Path(self.folders.state)

    @property
    def specs(self) -> Path:
        """The folder of descriptions of VMs."""
        return Path(self.folders.etc) / "vms"


def check(config: Config) -> Config:
    """Return @config; raise BadData."""
    if not ID.fullmatch(config.host):
        raise BadData(f"host: {config.host[:80]!r} is no name for a host")
    for name, span in (("migration.ports", config.migration.ports),
                       ("ports", config.ports)):
        if not 0 < span[0] <= span[1] < 65536:
            raise BadData(f"{name}: {list(span)} are no ports from-to")
    for name, program in config.qemu.items():
        if not program.startswith("/"):
            raise BadData(f"qemu.{name}: {program!r} is not absolute")
    for problem in check_memory("migration.memory", config.migration.memory):
        raise BadData(problem)
    if config.root.at not in ("/", "vms"):
        raise BadData(f"root.at: {config.root.at[:80]!r} is not known; \"/\": "
                      "the host, \"vms\": only what its VMs use, where it "
                      "does more than VMs")
    for name, pool in config.pool.items():
        if not pool.path.startswith("/"):
            raise BadData(f"pool.{name}.path: {pool.path!r} is not absolute")
        if not 0 <= pool.reserve < 1:
            raise BadData(f"pool.{name}.reserve: {pool.reserve} is not in "
                          "0..1")
    return config


def loads(text: str) -> Config:
    """Return the configuration in @text; raise BadData."""
    return check(toml.loads(Config, text))


def read(path: Path) -> Config:
    """Return the configuration in a file; raise BadData."""
    try:
        return loads(path.read_text(encoding="utf-8"))
    except (OSError, BadData) as error:
        raise BadData(f"{path}: {error}") from error
