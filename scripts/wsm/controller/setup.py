# SPDX-License-Identifier: GPL-2.0-or-later
"""controller.toml: what a controller is told of itself."""

import enum
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from wsm import pki
from wsm.plan import policy, toml
from wsm.plan.plain import BadData

SQLITE = "sqlite:"
POSTGRES = "postgresql://"


class Mode(enum.Enum):
    """What is done with a decision."""

    OBSERVE = "observe"         # it is written down
    ASK = "ask"                 # it waits for 'wsmctl apply'
    AUTO = "auto"               # it is carried out


@dataclass(frozen=True)
class Tls:
    """Files of the controller's certificate."""

    ca: str = "/etc/wsm-controller/ca.pem"
    cert: str = "/etc/wsm-controller/controller.pem"
    key: str = "/etc/wsm-controller/controller.key"


@dataclass(frozen=True)
class Settings:
    """All of it."""

    name: str
    cluster: str
    listen: str = ""            # address:port of its API; "": none
    store: str = "sqlite:/var/lib/wsm-controller/controller.db"
    policy: str = ""            # policy.toml; "": as shipped
    mode: Mode = Mode.OBSERVE   # to begin with, until 'wsmctl mode'
    settle: float = 600.0       # s after a start in which nothing is begun
    tls: Tls = Tls()


def has_password(store: str) -> bool:
    """Return whether a store is named with its password."""
    parts = urlsplit(store)
    return parts.password is not None or "password" in parse_qs(
        parts.query, keep_blank_values=True)


def check_store(store: str) -> None:
    """Refuse what is no store; raise BadData, without a password in it."""
    if store.startswith(SQLITE + "/"):
        return
    if not store.startswith(POSTGRES):
        raise BadData(
            f"store: {store.partition(':')[0][:20]!r} is not known; write "
            "sqlite: and an absolute path, on a local disk, or "
            "postgresql://USER@HOST/DATABASE")
    parts = urlsplit(store)
    if (not parts.path.strip("/") or parts.netloc.count("@") > 1
            or "@" in parts.path or parts.fragment):
        raise BadData("store: write postgresql://USER@HOST:PORT/DATABASE; in "
                      "a password, @ is %40, / is %2F, # is %23")


def check_secrets(settings: Settings, path: Path) -> None:
    """Refuse files with secrets that others can read; raise BadData."""
    pki.check_secret(settings.tls.key)
    if has_password(settings.store):
        pki.check_secret(str(path))
    if settings.store.startswith(POSTGRES):
        for name in parse_qs(urlsplit(settings.store).query).get(
                "passfile", []):
            pki.check_secret(name)


def check(settings: Settings) -> Settings:
    """Return @settings; raise BadData."""
    for key in ("name", "cluster"):
        value = getattr(settings, key)
        if not pki.NAME.fullmatch(value):
            raise BadData(f"{key}: {value[:80]!r} is no name: letters, "
                          "digits, -, _ and . only")
    check_store(settings.store)
    if settings.settle < 0:
        raise BadData(f"settle: {settings.settle:g} seconds are less than "
                      "none; 0 begins at once")
    if settings.listen:
        host, _, port = settings.listen.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise BadData(f"listen: {settings.listen[:80]!r} is no "
                          "ADDRESS:PORT, such as 10.0.0.1:7444")
    return settings


def loads(text: str) -> Settings:
    """Return the settings in @text; raise BadData."""
    return check(toml.loads(Settings, text))


def read(path: Path) -> Settings:
    """Return the settings in a file; raise BadData."""
    try:
        return loads(path.read_text(encoding="utf-8"))
    except (OSError, BadData) as error:
        raise BadData(f"{path}: {error}") from error


def policy_of(settings: Settings) -> policy.Policy:
    """Return the policy that settings name; raise BadData."""
    if not settings.policy:
        return policy.Policy()
    try:
        return policy.loads(Path(settings.policy).read_text("utf-8"))
    except (OSError, BadData) as error:
        raise BadData(f"{settings.policy}: {error}") from error
