# SPDX-License-Identifier: GPL-2.0-or-later
"""wsm-controller: watch hosts, decide, move."""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import pwd
import signal
import sys
from pathlib import Path
from typing import Any, Mapping

from aiohttp import web

from wsm import durable, pki
from wsm.controller import api, setup
from wsm.controller.asking import Agents
from wsm.controller.collector import Collector
from wsm.controller.executor import Executor
from wsm.controller.intake import Intake
from wsm.controller.journal import Journal
from wsm.controller.ledger import Ledger
from wsm.controller.rounds import LOG, Controller
from wsm.controller.schema import TooNew
from wsm.controller.setup import Settings
from wsm.controller.store import (
    Deposed, Store, StoreGone, database_of)
from wsm.plan.fleet import Fleet
from wsm.plan.plain import BadData

CONFIG = "/etc/wsm-controller/controller.toml"
USER = "wsm-controller"
HOSTS = "hosts.json"            # beside it: the hosts to begin with


def arguments() -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(prog="wsm-controller", description=(
        "Watch hosts and VMs, decide what is moved, and move it."))
    parser.add_argument("--config", type=Path, default=Path(CONFIG))
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="work until told to end")
    commands.add_parser("check", help="read configuration and policy, and "
                                      "say what is wrong with them")
    csr = commands.add_parser("csr", help="make a key and print a request "
                              "for a certificate ('wsmctl controller add' "
                              "does it)")
    csr.add_argument("--key", type=Path, required=True)
    csr.add_argument("--name", required=True)
    commands.add_parser("install", help="take certificate and configuration "
                        "from stdin ('wsmctl controller add' does it)")
    return parser.parse_args()


def install(path: Path, data: Mapping[str, Any]) -> None:
    """Write what 'wsmctl controller add' has sent."""
    for name in ("files", "config", "hosts"):
        if name not in data:
            raise BadData(f"stdin: {name} is missing")
    made = setup.loads(data["config"])
    if setup.has_password(made.store):
        raise BadData("store: everybody can read what is installed: write "
                      "the password into a passfile")
    api.entries_of(data["hosts"])
    for name in (made.tls.ca, made.tls.cert):
        durable.write(Path(name), data["files"][name].encode(), 0o644)
    if not path.exists() or data.get("replace"):
        durable.write(path, data["config"].encode(), 0o644)
    durable.write(path.with_name(HOSTS), json.dumps(data["hosts"]).encode(),
                  0o644)
    with contextlib.suppress(KeyError, PermissionError):
        user = pwd.getpwnam(USER)
        os.chown(made.tls.key, user.pw_uid, user.pw_gid)


def controller(settings: Settings) -> tuple[Controller, Agents]:
    """Return all of it, in the event loop that it is used in."""
    policy = setup.policy_of(settings)
    store = Store(database_of(settings.store))
    ledger = Ledger(store)
    journal = Journal(settings, store)
    agents = Agents(journal)
    made = Controller(settings, policy, store, Collector(
        Intake(Fleet(policy.interval), ledger.joined), agents),
        Executor(journal))
    return made, agents


def first_hosts(made: Controller, path: Path) -> None:
    """Take the hosts that came with the installation, if there are none."""
    with contextlib.suppress(FileNotFoundError, StoreGone, Deposed):
        if made.leader.take() and not made.ledger.hosts():
            made.ledger.set_hosts("install", api.entries_of(json.loads(
                path.with_name(HOSTS).read_text(encoding="utf-8"))))


async def serve(settings: Settings, path: Path) -> None:
    """Work until told to end."""
    made, agents = controller(settings)
    first_hosts(made, path)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runner = web.AppRunner(api.Door(made).app(), access_log=None)
    await runner.setup()
    if settings.listen:
        address, _, port = settings.listen.rpartition(":")
        await web.TCPSite(runner, address.strip("[]"), int(port),
                          ssl_context=api.tls(settings)).start()
    LOG.info("%s works, mode %s", settings.name, made.mode().value)
    rounds = asyncio.create_task(made.run())
    paces = asyncio.create_task(made.pacer.run())
    ended = asyncio.create_task(stop.wait())
    await asyncio.wait({rounds, ended}, return_when=asyncio.FIRST_COMPLETED)
    rounds.cancel()
    paces.cancel()
    await runner.cleanup()
    await made.close()
    await agents.close()
    made.store.close()
    if rounds.done() and not rounds.cancelled():
        rounds.result()


def act(args: argparse.Namespace) -> int:
    """Do what the command line says."""
    if args.command == "csr":
        pki.new_key(args.key)
        print(pki.request(args.key, args.name), end="")
        return 0
    if args.command == "install":
        install(args.config, json.load(sys.stdin))
        return 0
    made = setup.read(args.config)
    setup.check_secrets(made, args.config)
    setup.policy_of(made)
    if args.command == "check":
        if made.store.startswith(setup.POSTGRES):   # a file is made by 'run'
            database_of(made.store).close()
        print(f"{args.config}: good")
        return 0
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    asyncio.run(serve(made, args.config))
    return 0


def main() -> int:
    """Run the program; return its exit status."""
    args = arguments()
    try:
        return act(args)
    except (BadData, pki.NoCertificate, OSError, ValueError, StoreGone,
            TooNew, Deposed) as error:
        print(f"wsm-controller: {error}", file=sys.stderr)
        return 1
