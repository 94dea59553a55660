# SPDX-License-Identifier: GPL-2.0-or-later
"""wsmctl init, wsmctl host ..."""

import argparse
import contextlib
import json
import shlex
import subprocess
import sys
from typing import Any

from wsm import pki
from wsm.cli.agents import Agents, NoAnswer
from wsm.cli.home import CliError, Home, HostEntry
from wsm.cli.outlook import host_now
from wsm.cli.terminal import say, say_json, table, tell
from wsm.plan import toml
from wsm.plan.inventory import RESERVE, Host, HostState, human
from wsm.plan.spec import ID

TIMEOUT = 120
PORT = "7443"               # of an agent
END_OF_REQUEST = "-----END CERTIFICATE REQUEST-----"


def init(home: Home, args: argparse.Namespace) -> int:
    """Make a cluster."""
    cluster = home.init(args.cluster)
    return tell(args.json, f"cluster {cluster.name} is in {home.folder}; its "
                "CA's key is ca.key there: whoever has it can add hosts",
                {"cluster": cluster.name, "folder": str(home.folder)})


def remote(via: list[str], words: list[str], data: str = "") -> str:
    """Run the agent's program at a host; raise CliError."""
    command = [*via, *words]
    try:
        done = subprocess.run(command, check=False, input=data, text=True,
                              capture_output=True, timeout=TIMEOUT)
    except (OSError, subprocess.SubprocessError) as error:
        raise CliError(f"{shlex.join(command)}: {error}") from error
    if done.returncode:
        raise CliError(f"{shlex.join(command)}: "
                       f"{done.stderr.strip()[-1000:]}")
    return done.stdout


def by_hand(words: list[str], data: str = "", reads: bool = False) -> str:
    """Let a person run a command at the host; @reads what it prints."""
    say("At the host, as root, run:")
    print(f"\n{shlex.join(words)}"
          + (f" <<'END'\n{data}\nEND" if data else "") + "\n", flush=True)
    if not reads:
        return ""
    say(f"and paste here what it prints, to the line {END_OF_REQUEST}")
    lines: list[str] = []
    for line in sys.stdin:
        lines.append(line)
        if line.strip() == END_OF_REQUEST:
            return "".join(lines)
    raise CliError("that was no whole request for a certificate")


def configuration(args: argparse.Namespace, cluster: str) -> dict[str, Any]:
    """Return agent.toml as 'host add' has it."""
    folder = args.folder.rstrip("/")
    made: dict[str, Any] = {
        "host": args.name, "listen": args.address, "cluster": cluster,
        "qemu_img": args.qemu_img,
        "tls": {"ca": f"{folder}/ca.pem", "cert": f"{folder}/agent.pem",
                "key": f"{folder}/agent.key"},
        "migration": {"addr": args.migration or args.address.rpartition(
            ":")[0].strip("[]"), "ports": [47000, 47099],
                      "mbit": args.mbit},
        "qemu": {"wsm": args.qemu},
        "pool": {"default": {"path": args.pool,
                             "reserve": args.reserve / 100}},
        "network": {name: {"bridge": bridge} for name, _, bridge in
                    (each.partition("=") for each in args.network)},
        "root": {"cores": args.cores} if args.cores else {},
        "folders": {"etc": folder, "state": args.state, "run": args.run}}
    return {key: value for key, value in made.items() if value != {}}


def add(home: Home, args: argparse.Namespace) -> int:
    """Let a host join."""
    cluster = home.cluster
    args.address = address_of(args.name, args.address)
    if args.name in cluster.hosts and not args.replace:
        raise CliError(f"host {args.name} was added already; --replace", 2)
    via = shlex.split(args.via) if args.via is not None else [
        "ssh", args.address.rpartition(":")[0]]

    def run(words: list[str], data: str = "", reads: bool = False) -> str:
        return (by_hand(words, data, reads) if args.paste
                else remote(via, words, data))

    where_all_is(args)
    agent = shlex.split(args.agent)
    text = toml.dumps(configuration(args, cluster.name))
    request = run([*agent, "csr", "--key", f"{args.folder}/agent.key",
                   "--host", args.name], reads=True)
    certificate = pki.sign(home.folder, request, cluster.name, "agent",
                           args.name,
                           args.address.rpartition(":")[0].strip("[]"))
    ca = (home.folder / "ca.pem").read_text(encoding="ascii")
    folder = args.folder.rstrip("/")
    run([*agent, "--config", f"{folder}/agent.toml", "install"],
        json.dumps({"config": text, "replace": args.replace, "files": {
            f"{folder}/ca.pem": ca, f"{folder}/agent.pem": certificate}}))
    home.put_host(args.name, HostEntry(args.address))
    if not args.no_start:
        run([*agent, "--config", f"{folder}/agent.toml", "start"])
    return tell(args.json, f"host {args.name} was added"
                + (": start its agent" if args.no_start else
                   "; an agent that ran there before must be started anew"
                   if args.replace else ", and its agent runs"),
                {"host": args.name, "address": args.address,
                 "started": not args.no_start})


def address_of(name: str, address: str) -> str:
    """Return a host's address with its port; raise CliError."""
    if not ID.fullmatch(name):
        raise CliError(f"{name!r} is no name for a host: letters, digits, "
                       "-, _ and . only", 2)
    host, _, port = address.rpartition(":")
    if not host or address.endswith("]"):
        host, port = address, PORT
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise CliError(f"{address!r} is no address of an agent: HOST, or "
                       "HOST:PORT with a port from 1 to 65535", 2)
    if ":" in host and not host.startswith("["):
        raise CliError(f"{address!r}: an IPv6 address stands in brackets, "
                       f"[{address}]", 2)
    return f"{host}:{port}"


def where_all_is(args: argparse.Namespace) -> None:
    """Fill in what the command line leaves open."""
    clone, below = args.clone, args.below
    for name, in_clone, elsewhere in (
            ("agent", "scripts/wsm-agent", "wsm-agent"),
            ("qemu", "build/qemu-system-x86_64",
             "/usr/bin/qemu-system-x86_64"),
            ("qemu_img", "build/qemu-img", "qemu-img")):
        given = getattr(args, name)
        setattr(args, name, given or (f"{clone}/{in_clone}" if clone
                                      else elsewhere))
    for name, folder, elsewhere in (
            ("folder", "etc", "/etc/wsm"), ("state", "state", "/var/lib/wsm"),
            ("run", "run", "/run/wsm"),
            ("pool", "images", "/var/lib/wsm/images")):
        given = getattr(args, name)
        setattr(args, name, given or (f"{below}/{folder}" if below
                                      else elsewhere))


def host_json(home: Home, host: Host) -> dict[str, Any]:
    """Return a host for programs."""
    return {"name": host.name, "state": host.state.value,
            "address": home.host(host.name).address,
            "cores": host.cores, "demand": round(host.demand, 2),
            "memory": host.memory, "available": host.available,
            "pools": {name: pool.usable for name, pool
                      in host.pools.items()},
            "networks": list(host.networks)}


def host_rows(found: list[Host]) -> list[tuple[str, ...]]:
    """Return hosts for people, with a head."""
    rows: list[tuple[str, ...]] = [
        ("HOST", "STATE", "CPU", "MEMORY FREE", "POOLS", "NETWORKS")]
    for host in found:
        known = host.state is not HostState.UNKNOWN
        rows.append((
            host.name, host.state.value,
            f"{host.demand:.1f}/{host.cores:g}" if known else "-",
            f"{human(host.available)} of {human(host.memory)}"
            if known else "-",
            ", ".join(f"{name}: {human(pool.usable)}" for name, pool
                      in sorted(host.pools.items())) or "-",
            ", ".join(host.networks) or "-"))
    return rows


def show(home: Home, args: argparse.Namespace) -> int:
    """List the hosts as they are now."""
    agents = Agents(home)
    found = [host_now(agents, name) for name in agents.names()]
    if args.json:
        say_json([host_json(home, host) for host in found])
    else:
        table(host_rows(found))
    return 5 if any(host.state is HostState.UNKNOWN for host in found) else 0


def cordon(home: Home, args: argparse.Namespace) -> int:
    """Let a host take no VMs, or take them again."""
    entry = home.host(args.name)
    state = "active" if args.off else "cordoned"
    home.put_host(args.name, HostEntry(entry.address, state))
    return tell(args.json, f"{args.name} is {state}",
                {"host": args.name, "state": state})


def remove(home: Home, args: argparse.Namespace) -> int:
    """Forget a host; its VMs stay where they are."""
    home.host(args.name)
    try:
        found = Agents(home)[args.name].get("/vms")["vms"]
    except NoAnswer:
        found = []
    if found and not args.force:
        raise CliError(f"{args.name} has VMs: "
                       + ", ".join(vm["name"] for vm in found)
                       + "; --force forgets it nevertheless", 4)
    home.put_host(args.name, None)
    return tell(args.json, f"{args.name} is no host of this cluster any more",
                {"host": args.name, "state": "removed"})


def percent(text: str) -> float:
    """Return a part of 100, less than all of it; raise ArgumentTypeError."""
    with contextlib.suppress(ValueError):
        if 0 <= (found := float(text)) < 100:
            return found
    raise argparse.ArgumentTypeError(f"{text!r} is no percentage from 0 to "
                                     "99")


def options(commands: Any) -> None:
    """Describe these verbs."""
    parser = commands.add_parser("init", help="make a cluster")
    parser.add_argument("--cluster", default="wsm", metavar="NAME")
    parser.set_defaults(act=init)
    parser = commands.add_parser("host", help="add, list, cordon, "
                                 "uncordon, remove")
    verbs = parser.add_subparsers(dest="verb", required=True)
    each = verbs.add_parser("add", help="let a host join, by ssh")
    each.add_argument("name")
    each.add_argument("address", help="of its agent: HOST or HOST:PORT")
    each.add_argument("--via", metavar="COMMAND", help="instead of 'ssh HOST'"
                      ": what to put before the agent's command; \"\" if it "
                      "is this host")
    each.add_argument("--paste", action="store_true", help="no ssh: say what "
                      "to run there, and read what it prints")
    each.add_argument("--clone", metavar="FOLDER", help="of qemu-wsm there, "
                      "as scripts/build leaves it: its agent, its QEMU")
    each.add_argument("--agent", metavar="COMMAND",
                      help="the agent's program there; default: wsm-agent")
    each.add_argument("--qemu", metavar="PROGRAM",
                      help="default: /usr/bin/qemu-system-x86_64")
    each.add_argument("--qemu-img", metavar="PROGRAM")
    each.add_argument("--no-start", action="store_true",
                      help="do not start the agent")
    each.add_argument("--pool", metavar="FOLDER",
                      help="for images; default: /var/lib/wsm/images")
    each.add_argument("--reserve", type=percent, default=100 * RESERVE,
                      metavar="PERCENT", help="of that file system, which "
                      f"stay free (default: {100 * RESERVE:g})")
    each.add_argument("--network", action="append", default=[],
                      metavar="NAME=BRIDGE")
    each.add_argument("--migration", default="", metavar="ADDRESS",
                      help="where migrations come in; default: the agent's")
    each.add_argument("--mbit", type=int, default=0,
                      help="how fast that network is")
    each.add_argument("--cores", type=float, default=0.0,
                      help="that VMs may use; default: all")
    each.add_argument("--below", metavar="FOLDER", help="of all of these, "
                      "if not below /etc, /var and /run")
    each.add_argument("--folder", metavar="FOLDER",
                      help="configuration; default: /etc/wsm")
    each.add_argument("--state", metavar="FOLDER",
                      help="default: /var/lib/wsm")
    each.add_argument("--run", metavar="FOLDER", help="default: /run/wsm")
    each.add_argument("--replace", action="store_true")
    each.set_defaults(act=add)
    each = verbs.add_parser("list", help="the hosts as they are now")
    each.set_defaults(act=show)
    each = verbs.add_parser("cordon", help="let a host take no VMs")
    each.add_argument("name")
    each.add_argument("--off", action="store_true", help="let it take them")
    each.set_defaults(act=cordon)
    each = verbs.add_parser("uncordon", help="let it take them again")
    each.add_argument("name")
    each.set_defaults(act=cordon, off=True)
    each = verbs.add_parser("remove", help="forget a host")
    each.add_argument("name")
    each.add_argument("--force", action="store_true")
    each.set_defaults(act=remove)
