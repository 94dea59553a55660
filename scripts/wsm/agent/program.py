# SPDX-License-Identifier: GPL-2.0-or-later
"""wsm-agent: run, and join a cluster."""

import argparse
import json
import logging
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from wsm import durable, pki
from wsm.agent import config, launch, server
from wsm.plan.plain import BadData

CONFIG = "/etc/wsm/agent.toml"
UNIT = "wsm-agent.service"
START_WAIT = 20.0       # s


def arguments() -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(prog="wsm-agent", description=(
        "Look after the VMs of this host, and carry out their moves."))
    parser.add_argument("--config", type=Path, default=Path(CONFIG))
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="serve until told to end")
    commands.add_parser("start", help="be started, by systemd if it has the "
                        "unit, and wait until it listens")
    commands.add_parser("check", help="read the configuration and say what "
                                      "is wrong with it")
    csr = commands.add_parser("csr", help="make a key and print a request "
                              "for a certificate ('wsmctl host add' does it)")
    csr.add_argument("--key", type=Path, required=True)
    csr.add_argument("--host", required=True)
    commands.add_parser("install", help="take certificate and configuration "
                        "from stdin ('wsmctl host add' does it)")
    return parser.parse_args()


def install(path: Path, data: Any) -> None:
    """Write what 'wsmctl host add' has sent."""
    for name in ("files", "config"):
        if name not in data:
            raise BadData(f"stdin: {name} is missing")
    made = config.loads(data["config"])
    for name in (made.tls.ca, made.tls.cert):
        durable.write(Path(name), data["files"][name].encode(), 0o644)
    for pool in made.pool.values():
        Path(pool.path).mkdir(parents=True, exist_ok=True)
    if not path.exists() or data.get("replace"):
        durable.write(path, data["config"].encode(), 0o644)


def listens(made: config.Config) -> bool:
    """Return whether somebody listens where the agent would."""
    address, _, port = made.listen.rpartition(":")
    try:
        socket.create_connection((address.strip("[]"), int(port)), 1).close()
    except OSError:
        return False
    return True


def by_systemd(path: Path) -> bool:
    """Start the unit, if there is one for this configuration."""
    if str(path) != CONFIG or not launch.has_systemd() or subprocess.run(
            ["systemctl", "cat", UNIT], check=False,
            capture_output=True).returncode:
        return False
    for verb in ("enable", "restart"):      # it may run with an old certificate
        done = subprocess.run(["systemctl", verb, UNIT], check=False,
                              capture_output=True, text=True)
        if done.returncode:
            raise BadData(f"systemctl {verb} {UNIT}: {done.stderr.strip()}")
    return True


def start(path: Path, made: config.Config) -> None:
    """Let an agent run that outlives this program; raise BadData."""
    log = made.run / "agent.log"
    made.run.mkdir(parents=True, exist_ok=True)
    process = None
    if not by_systemd(path) and not listens(made):
        with log.open("ab") as output:
            # pylint: disable-next=consider-using-with
            process = subprocess.Popen(
                [sys.executable, os.path.abspath(sys.argv[0]), "--config",
                 str(path.absolute()), "run"], stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, start_new_session=True, cwd="/")
    end = time.monotonic() + START_WAIT
    while not listens(made):
        if process and process.poll() is not None:
            words = log.read_text("utf-8", "replace").strip().splitlines()
            raise BadData(f"the agent has ended: {''.join(words[-1:])} (all "
                          f"of it is in {log})")
        if time.monotonic() > end:
            raise BadData(f"the agent does not listen on {made.listen} after "
                          f"{START_WAIT:.0f} s; look at {log}, or "
                          f"'journalctl -u {UNIT}'")
        time.sleep(0.1)


def act(args: argparse.Namespace) -> int:
    """Do what the command line says."""
    if args.command == "csr":
        pki.new_key(args.key)
        print(pki.request(args.key, args.host), end="")
        return 0
    if args.command == "install":
        install(args.config, json.load(sys.stdin))
        return 0
    made = config.read(args.config)
    pki.check_secret(made.tls.key)
    if args.command == "check":
        print(f"{args.config}: good")
        return 0
    if args.command == "start":
        start(args.config, made)
        return 0
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    server.serve(made)
    return 0


def main() -> int:
    """Run the program; return its exit status."""
    args = arguments()
    try:
        return act(args)
    except (BadData, pki.NoCertificate, OSError, ValueError) as error:
        print(f"wsm-agent: {error}", file=sys.stderr)
        return 1
