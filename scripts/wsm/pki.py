# SPDX-License-Identifier: GPL-2.0-or-later
"""Certificates of a cluster, by openssl: one CA, one address for each.

The address, wsm://CLUSTER/KIND/NAME, says who somebody is and what he may do.
It is put in by whoever signs, never taken from a request.
"""

import os
import re
import ssl
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Optional

from wsm.plan.plain import BadData

CA_DAYS = 3650
DAYS = 825
TIMEOUT = 60
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
KINDS = ("agent", "controller", "user")
ADDRESS = re.compile(r"wsm://([^/]+)/([^/]+)/([^/?]+)(?:\?role=([a-z]+))?")
ROLES = ("viewer", "operator", "admin")     # of users, each may do more


class NoCertificate(Exception):
    """Something about certificates that does not work."""


@dataclass(frozen=True)
class Identity:
    """Whose a certificate is."""

    kind: str                   # one of KINDS
    name: str
    role: str = ""              # of a user

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


def openssl(*words: str, data: bytes = b"") -> bytes:
    """Run openssl; raise NoCertificate with what it says."""
    try:
        done = subprocess.run(["openssl", *words], check=False, input=data,
                              capture_output=True, timeout=TIMEOUT)
    except (OSError, subprocess.SubprocessError) as error:
        raise NoCertificate(f"openssl: {error}") from error
    if done.returncode:
        text = done.stderr.decode("utf-8", "replace").strip()
        raise NoCertificate(f"openssl {words[0]}: {text[-500:]}")
    return done.stdout


def new_key(path: Path) -> None:
    """Make a private key that only its owner can read; keep one there."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    key = openssl("genpkey", "-algorithm", "EC", "-pkeyopt",
                  "ec_paramgen_curve:P-256")
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.write(key)


def new_ca(folder: Path, cluster: str) -> None:
    """Make the CA of a cluster: ca.key and ca.pem; keep one there."""
    if not NAME.fullmatch(cluster):
        raise NoCertificate(f"{cluster[:80]!r} is no name for a cluster")
    key, certificate = folder / "ca.key", folder / "ca.pem"
    new_key(key)
    if not certificate.exists():
        openssl("req", "-x509", "-new", "-key", str(key), "-days",
                str(CA_DAYS), "-subj", f"/CN=wsm CA of {cluster}", "-addext",
                "keyUsage=critical,keyCertSign,cRLSign", "-out",
                str(certificate))


def check_secret(key: str) -> None:
    """Refuse a key that others can read; raise BadData."""
    mode = os.stat(key).st_mode
    if mode & 0o077:
        raise BadData(f"{key}: others can read it (mode {mode & 0o777:o}); "
                      "chmod 600")


def request(key: Path, name: str) -> str:
    """Return a request for a certificate, in PEM."""
    return openssl("req", "-new", "-key", str(key), "-subj",
                   f"/CN={name}").decode("ascii")


def sign(folder: Path, text: str, cluster: str, kind: str, name: str,
         address: str = "", role: str = "") -> str:
    """Return a certificate for a request, in PEM; the CA is in @folder."""
    if kind not in KINDS or not NAME.fullmatch(name):
        raise NoCertificate(f"{kind} {name[:80]!r}: no name that can be given")
    if (kind == "user") != (role in ROLES):
        raise NoCertificate(f"{kind} {name}: a user has a role, "
                            + ", ".join(ROLES))
    openssl("req", "-verify", "-noout", data=text.encode())
    names = [f"URI:wsm://{cluster}/{kind}/{name}"
             + (f"?role={role}" if role else ""), f"DNS:{name}"]
    if re.fullmatch(r"[0-9.]+|[0-9a-fA-F:]+", address):
        names.append(f"IP:{address}")
    with tempfile.TemporaryDirectory() as temporary:
        extensions = Path(temporary) / "extensions"
        extensions.write_text(
            "basicConstraints=critical,CA:FALSE\n"
            "keyUsage=critical,digitalSignature\n"
            "extendedKeyUsage=serverAuth,clientAuth\n"
            f"subjectAltName={','.join(names)}\n", encoding="ascii")
        return openssl(
            "x509", "-req", "-CA", str(folder / "ca.pem"), "-CAkey",
            str(folder / "ca.key"), "-days", str(DAYS), "-set_serial",
            f"0x{os.urandom(16).hex()}", "-extfile", str(extensions),
            data=text.encode()).decode("ascii")


def bundle(folder: Path, password: str) -> bytes:
    """Return key, certificate and CA of a folder, as browsers take them."""
    return openssl(
        "pkcs12", "-export", "-in", str(folder / "controller.pem"), "-inkey",
        str(folder / "controller.key"), "-certfile", str(folder / "ca.pem"),
        "-passout", "stdin", data=f"{password}\n".encode())


def client_context(ca: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    """Return how a controller speaks to agents: TLS 1.3, pinned to the CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(str(ca))
    context.load_cert_chain(str(certificate), str(key))
    context.check_hostname = False      # the address says more: see peer_is()
    return context


def server_context(ca: str, certificate: str, key: str) -> ssl.SSLContext:
    """Return how a door is made safe: TLS 1.3, both have certificates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(ca)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def identity(certificate: Mapping[str, Any],
             cluster: str) -> Optional[Identity]:
    """Return whose a certificate is, None if it is not of @cluster."""
    for kind, value in certificate.get("subjectAltName", ()):
        found = ADDRESS.fullmatch(value)
        if kind == "URI" and found and found[1] == cluster:
            return Identity(found[2], found[3], found[4] or "")
    return None


def peer_is(sock: ssl.SSLSocket, cluster: str, kind: str, name: str) -> bool:
    """Return whether the other end is who it shall be."""
    return is_for(sock.getpeercert() or {}, cluster, kind, name)


def is_for(certificate: Mapping[str, Any], cluster: str, kind: str,
           name: str) -> bool:
    """Return whether a certificate, as ssl shows it, is somebody's."""
    wanted = ("URI", f"wsm://{cluster}/{kind}/{name}")
    return wanted in certificate.get("subjectAltName", ())
