# SPDX-License-Identifier: GPL-2.0-or-later
"""wsmctl controller ...: add daemons and people, tell them of hosts."""

import argparse
import dataclasses
import json
import secrets
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from wsm import durable, pki
from wsm.cli import daemons
from wsm.cli.agents import AgentSaid, NoAnswer
from wsm.cli.home import CliError, Home
from wsm.cli.hosts import address_of, by_hand, remote
from wsm.cli.terminal import say_json, table, tell
from wsm.plan import toml
from wsm.plan.plain import to_plain

PORT = "7444"
BROWSER = "browser.p12"


def configuration(args: argparse.Namespace, cluster: str) -> str:
    """Return controller.toml."""
    folder = args.folder.rstrip("/")
    made: dict[str, Any] = {
        "name": args.name, "cluster": cluster, "listen": args.address,
        "store": args.store or
        f"sqlite:{args.state.rstrip('/')}/controller.db",
        "tls": {"ca": f"{folder}/ca.pem", "cert": f"{folder}/controller.pem",
                "key": f"{folder}/controller.key"}}
    if args.policy:
        made["policy"] = args.policy
    return toml.dumps(made)


def add(home: Home, args: argparse.Namespace) -> int:
    """Let a controller join; it only looks, to begin with."""
    cluster = home.cluster
    if ":" not in args.address.rpartition("]")[2]:
        args.address += f":{PORT}"
    args.address = address_of(args.name, args.address)
    parts = urlsplit(args.store)
    if parts.password or "password=" in parts.query:
        raise CliError("a password in a command is seen by everybody: write "
                       "?passfile=FILE, a file there", 2)
    if args.name in cluster.controllers and not args.replace:
        raise CliError(f"controller {args.name} was added already; --replace",
                       2)
    via = shlex.split(args.via) if args.via is not None else [
        "ssh", args.address.rpartition(":")[0]]

    def run(words: list[str], data: str = "", reads: bool = False) -> str:
        return (by_hand(words, data, reads) if args.paste
                else remote(via, words, data))

    program, folder = shlex.split(args.program), args.folder.rstrip("/")
    request = run([*program, "csr", "--key", f"{folder}/controller.key",
                   "--name", args.name], reads=True)
    # A browser wants the address that it is told to be in the certificate
    certificate = pki.sign(home.folder, request, cluster.name, "controller",
                           args.name,
                           args.address.rpartition(":")[0].strip("[]"))
    ca = (home.folder / "ca.pem").read_text(encoding="ascii")
    run([*program, "--config", f"{folder}/controller.toml", "install"],
        json.dumps({"config": configuration(args, cluster.name),
                    "replace": args.replace, "files": {
                        f"{folder}/ca.pem": ca,
                        f"{folder}/controller.pem": certificate},
                    "hosts": {name: to_plain(entry) for name, entry
                              in cluster.hosts.items()}}))
    home.put_controller(args.name, args.address)
    return tell(args.json, f"controller {args.name} was added; start it: "
                "'systemctl enable --now wsm-controller' there. It only "
                "looks, until 'wsmctl mode auto'",
                {"controller": args.name, "address": args.address})


def listing(home: Home, args: argparse.Namespace) -> int:
    """List the controllers, and what they do."""
    rows = []
    for name, address in sorted(home.cluster.controllers.items()):
        row = {"name": name, "address": address, "state": "leads"}
        daemon = daemons.Daemon(home, name)
        try:
            found = daemon.get("/state")
            row["state"] = ("leads, mode " + str(found["mode"])
                            if found["leads"] else "stands by")
            row["problem"] = str(found["problem"])
        except (NoAnswer, AgentSaid) as error:
            row.update(state="no store" if isinstance(error, AgentSaid)
                       and error.code == "StoreGone" else "silent",
                       problem=str(error))
        finally:
            daemon.close()
        rows.append(row)
    if args.json:
        say_json(rows)
    else:
        table([("CONTROLLER", "ADDRESS", "STATE", "PROBLEM"), *(
            (row["name"], row["address"], row["state"],
             row["problem"] or "-") for row in rows)])
    return 5 if any(row["state"] in ("silent", "no store")
                    for row in rows) else 0


def remove(home: Home, args: argparse.Namespace) -> int:
    """Forget a controller."""
    home.put_controller(args.name, "")
    return tell(args.json, f"{args.name} is forgotten: stop it there",
                {"controller": args.name})


def sync(home: Home, args: argparse.Namespace) -> int:
    """Tell the controller which hosts there are."""
    daemons.tell_hosts(home)
    return tell(args.json, "the controller knows all hosts", {
        "hosts": sorted(home.cluster.hosts)})


def user(home: Home, args: argparse.Namespace) -> int:
    """Make a folder with which somebody can use wsmctl, by a role."""
    folder = Path(args.out)
    if (folder / "cluster.json").exists():
        raise CliError(f"{folder} has a cluster already", 2)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    key = folder / "controller.key"
    pki.new_key(key)
    cluster = home.cluster
    durable.write(folder / "controller.pem", pki.sign(
        home.folder, pki.request(key, args.name), cluster.name, "user",
        args.name, role=args.role).encode(), 0o644)
    durable.write(folder / "ca.pem", (home.folder / "ca.pem").read_bytes(),
                  0o644)
    Home(str(folder)).save(dataclasses.replace(
        cluster, instance=f"user-{args.name}"))
    text = (f"{folder} is for {args.name}, {args.role}: "
            f"'wsmctl --home {folder} plan'")
    made = {"user": args.name, "role": args.role, "folder": str(folder)}
    if args.browser:
        made["password"] = secrets.token_hex(8)
        durable.write(folder / BROWSER, pki.bundle(
            folder, made["password"]), 0o600)
        text += (f". {folder / BROWSER} is for a browser, its password is "
                 f"{made['password']}; let the browser trust {folder}/ca.pem "
                 "for sites")
    return tell(args.json, text, made)


def options(commands: Any) -> None:
    """Describe these verbs."""
    verbs = commands.add_parser("controller", help="daemons that decide by "
                                "themselves").add_subparsers(
                                    dest="verb", required=True)
    each = verbs.add_parser("add", help="let a controller join")
    each.add_argument("name")
    each.add_argument("address", help=f"ADDRESS or ADDRESS:PORT, else {PORT}")
    each.add_argument("--via", metavar="COMMAND", help="in front of commands "
                      "there; default: ssh ADDRESS, \"\": here")
    each.add_argument("--paste", action="store_true",
                      help="show the commands, read what they print")
    each.add_argument("--program", default="wsm-controller")
    each.add_argument("--folder", default="/etc/wsm-controller")
    each.add_argument("--state", default="/var/lib/wsm-controller")
    each.add_argument("--store", default="", metavar="URI",
                      help="postgresql://USER@HOST/DATABASE, which all "
                      "controllers share; default: a file in the folder of "
                      "--state")
    each.add_argument("--policy", default="", metavar="FILE",
                      help="policy.toml there")
    each.add_argument("--replace", action="store_true")
    each.set_defaults(act=add)
    each = verbs.add_parser("list", help="controllers, and what they do")
    each.set_defaults(act=listing)
    each = verbs.add_parser("remove", help="forget one")
    each.add_argument("name")
    each.set_defaults(act=remove)
    each = verbs.add_parser("sync", help="tell them which hosts there are")
    each.set_defaults(act=sync)
    each = verbs.add_parser("user", help="let somebody use wsmctl by a role")
    each.add_argument("name")
    each.add_argument("--role", choices=pki.ROLES, default="viewer")
    each.add_argument("--out", required=True, metavar="FOLDER")
    each.add_argument("--browser", action="store_true", help=f"{BROWSER}, "
                      "too: key and certificate for a browser")
    each.set_defaults(act=user)
