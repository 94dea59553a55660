# SPDX-License-Identifier: GPL-2.0-or-later
"""Make the description of a VM from a QEMU that runs.

RULES is the table: the first row whose options and condition fit an option
of the command line deals with it; what no row wants is kept word by word.
After that, what the guest has must be explained by the command line.
"""

import os.path
import re
from dataclasses import dataclass
from typing import Callable, Iterator, Optional

from wsm.plan import argv, spec
from wsm.plan.argv import Option, Values
from wsm.plan.draft import Adoption, Draft, GuestDisk, Running
from wsm.plan.plain import BadData

NO_UUID = "00000000-0000-0000-0000-000000000000"
VNC_LOOPBACK = ("", "localhost", "127.0.0.1", "::1", "[::1]", "0.0.0.0", "::",
                "[::]")
ON = ("on", "yes", "true", "")      # the last: a key alone
HARD_DRIVES = {"": 0, "hda": 0, "hdb": 1, "hdc": 2, "hdd": 3}
BY_DESCRIPTORS = ("fd", "fds", "vhostfd", "vhostfds")
BAD_DEVICES = {
    "vfio-": "a device of the host is passed through to it",
    "usb-host": "a USB device of the host is passed through to it",
    "ivshmem": "it shares memory with another program",
    "virtio-9p": "it shares a folder with the host",
    "vhost-user-": "another program serves the device",
    "vhost-scsi": "the host's kernel serves the device",
    "vhost-vsock": "its address belongs to this host",
    "vhost-vdpa": "a device of the host is passed through to it",
    "scsi-generic": "a SCSI device of the host is passed through to it",
    "scsi-block": "a SCSI device of the host is passed through to it",
}
BAD_BACKENDS = {
    "vhost-user": "another program serves the network",
    "vhost-vdpa": "a device of the host is passed through to it",
}


Act = Callable[[Draft, Option], None]


def escaped(option: Option) -> Values:
    """Return the members of an argument with each "$" doubled."""
    return option.with_value(spec.escape(option.value)).values()


# The rows


def drop(_draft: Draft, _option: Option) -> None:
    """Leave out what is the agent's own."""


def drop_monitor(draft: Draft, option: Option) -> None:
    """Leave out a monitor, and its character device."""
    draft.chardevs.add(option.values().get("chardev") or "")


def take_name(draft: Draft, option: Option) -> None:
    """Learn the VM's name."""
    draft.name = draft.name or option.values().get("guest") or ""


def refused(reason: str) -> Act:
    """Return what refuses an option, with the reason and the remedy."""
    def act(draft: Draft, option: Option) -> None:
        draft.refuse(f"-{option.name} {option.value[:60]}".rstrip()
                     + f": {reason}")

    return act


THROWN_AWAY = refused("what the guest writes goes to a temporary file. Start "
                      "it without")
MANAGED = refused("it was started by a manager that hands over descriptors "
                  "(libvirt, Proxmox); move it with that manager")


def versioned(draft: Draft, option: Option) -> None:
    """Name the machine with its version."""
    values = escaped(option)
    values.put("type", draft.running.machine.removesuffix("-machine"))
    draft.has_machine = True
    if values.json is None and values.pairs[0][0] != "type":
        values.pairs.sort(key=lambda pair: pair[0] != "type")
    draft.change(option, values)


def host_cpu(draft: Draft, option: Option) -> None:
    """Refuse a CPU that another host need not have."""
    if draft.running.allow_host_cpu:
        draft.say("warning", f"-cpu {option.value}: moves only between hosts "
                  "whose CPUs are equal")
        draft.keep(option)
        return
    draft.refuse(f"-cpu {option.value}: this host's CPU, not one that others "
                 "have. Start the VM with a model by name (-cpu help), or set "
                 "allow_host_cpu if all hosts have the same CPU")


def device(draft: Draft, option: Option) -> None:
    """Count a device, and refuse those that belong to this host."""
    values = option.values()
    driver = values.get("driver") or ""
    for prefix, reason in BAD_DEVICES.items():
        if driver.startswith(prefix):
            draft.refuse(f"device {values.get('id') or driver}: {driver}: "
                         f"{reason}. Unplug it")
            return
    draft.devices.append(values.get("id") or "")
    draft.keep(option)


def block_option(draft: Draft, option: Option, values: Values, path_key: str,
                 format_key: str, read_only_name: str) -> None:
    """Put placeholders for an image; refuse one that nobody knows."""
    path = option.values().get(path_key) or ""
    if re.match(r"/dev/fdset/|[a-z+]+:", path):
        draft.refuse(f"image {path}: no file of this host. Only files and "
                     "block devices move")
        return
    disk = draft.disk_of(path)
    if disk is None:
        draft.refuse(f"image {draft.absolute(path)}: the guest has no disk "
                     "with it. It was changed while the VM ran, or is there "
                     "for something else")
        return
    if disk.read_only:
        values.put(path_key, draft.add_file(read_only_name or disk.name, path))
        if option.name == "drive" and not values.get("format"):
            values.put("format", disk.format)
        draft.change(option, values)
        return
    name = draft.add_disk(disk)
    values.put(path_key, f"${{disk.{name}.path}}")
    values.put(format_key, f"${{disk.{name}.format}}")
    if path_key.endswith("filename"):
        values.put(path_key.replace("filename", "driver"),
                   f"${{disk.{name}.protocol}}")
    draft.change(option, values)


def blockdev(draft: Draft, option: Option) -> None:
    """Deal with -blockdev: one with its file inside it, or a file alone."""
    values = option.values()
    if values.get("backing"):
        draft.refuse(f"-blockdev {values.get('node-name')}: its backing node "
                     "is on the command line. Leave it out: the image names "
                     "its backing file")
        return
    if values.get("file.filename") is not None:
        block_option(draft, option, escaped(option), "file.filename", "driver",
                     values.get("node-name") or "")
        return
    if values.get("filename") is None:      # a format over another node
        format_over_node(draft, option)
        return
    disk = draft.disk_of(values.get("filename") or "")
    new = escaped(option)
    if disk is None or disk.read_only:
        block_option(draft, option, new, "filename", "driver", "")
        return
    name = draft.add_disk(disk)
    new.put("filename", f"${{disk.{name}.path}}")
    new.put("driver", f"${{disk.{name}.protocol}}")
    draft.change(option, new)


def format_over_node(draft: Draft, option: Option) -> None:
    """Put the placeholder for the format of a node whose file is a node."""
    values = escaped(option)
    below = values.get("file")
    for other in argv.split(draft.running.argv[1:]):
        inner = other.values() if other.name == "blockdev" else None
        if inner is None or inner.get("node-name") != below or not below:
            continue
        disk = draft.disk_of(inner.get("filename") or "")
        if disk and not disk.read_only and values.get("driver") == disk.format:
            values.put("driver", f"${{disk.{disk.name}.format}}")
    draft.change(option, values)


def drive(draft: Draft, option: Option) -> None:
    """Deal with -drive."""
    values = option.values()
    if values.get("snapshot") == "on":
        THROWN_AWAY(draft, option)
        return
    if (values.get("if") or "") == "virtio":
        draft.devices.append("")
    path = values.get("file")
    if not path:
        draft.keep(option)              # an empty drive
        return
    block_option(draft, option, escaped(option), "file", "format",
                 values.get("id") or "")


def image_alone(draft: Draft, option: Option) -> None:
    """Turn -hda IMAGE and the like into the -drive that QEMU makes of it."""
    if option.name == "cdrom":
        text = "index=2,media=cdrom"
    elif option.name == "pflash":
        text = "if=pflash"
    else:
        text = f"index={HARD_DRIVES[option.name]},media=disk"
    path = option.value.replace(",", ",,")
    drive(draft, Option("drive", ("-drive", f"{text},file={path}")))


def firmware(draft: Draft, option: Option) -> None:
    """Put a placeholder for a kernel, and for firmware that is a path."""
    if (option.name in ("bios", "option-rom") and draft.absolute(option.value)
            not in draft.running.files):
        draft.keep(option)              # QEMU looks for it in its own folders
        return
    draft.options.append(option.with_value(
        draft.add_file(option.name, option.value)))


def bridge_of(draft: Draft, values: Values) -> Optional[str]:
    """Return the bridge of a tap, None if that is not clear."""
    bridges = draft.running.bridges
    named = values.get("ifname")
    if named:
        return bridges.get(named)
    if values.get("type") == "bridge" or values.get("br"):
        return values.get("br") or "br0"
    return next(iter(bridges.values())) if len(set(
        bridges.values())) == 1 else None


def tap(draft: Draft, option: Option) -> None:
    """Put the placeholder for a tap, and find its network."""
    values = option.values()
    if any(values.get(key) for key in BY_DESCRIPTORS):
        MANAGED(draft, option)
        return
    name = values.get("id") or f"net{len(draft.nets)}"
    bridge = bridge_of(draft, values)
    network = draft.running.networks.get(bridge or "")
    if network is None:
        draft.refuse(f"network card {name}: its tap is on "
                     + (f"bridge {bridge}" if bridge else "no bridge")
                     + ", and no network of this host has that. Add it to "
                     "agent.toml: network.NAME = { bridge = ... }")
        return
    draft.nets[name] = spec.Net(network)
    new = escaped(option)
    new.put("type", "tap")
    new.drop("br", "helper", "script", "downscript")
    new.put("ifname", f"${{net.{name}.ifname}}")
    new.put("script", "no")
    new.put("downscript", "no")
    draft.change(option, new)


def other_net(draft: Draft, option: Option) -> None:
    """Keep a network without a tap, and say what that means."""
    kind = option.values().get("type") or ""
    if any(option.values().get(key) for key in BY_DESCRIPTORS):
        MANAGED(draft, option)
    elif kind in BAD_BACKENDS:
        draft.refuse(f"-{option.name} {kind}: {BAD_BACKENDS[kind]}")
    else:
        if kind not in ("nic", "none"):
            draft.say("warning", f"network of type {kind}: the guest's "
                      "connections break when it moves")
        new = escaped(option)
        for key in ("local.path", "addr.path"):
            if values_say_server(new, key):
                put_socket(draft, new, key)
        draft.change(option, new)


def values_say_server(values: Values, key: str) -> bool:
    """Return whether a socket in the file system is this QEMU's own."""
    return bool(values.get(key)) and (
        key == "local.path" or values.get("server") in ON)


def put_socket(draft: Draft, values: Values, key: str) -> None:
    """Put a socket that QEMU makes into the folder that is its own."""
    name = values.get("id") or f"socket{len(draft.options)}"
    draft.say("warning", f"socket {values.get(key)}: elsewhere it is "
              f"{name}.sock in the VM's run folder")
    values.put(key, f"${{run}}/{name}.sock")


def vnc(draft: Draft, option: Option) -> None:
    """Put the placeholder for VNC's port."""
    values = escaped(option)
    address = values.get("vnc") or ""
    host, colon, number = address.rpartition(":")
    if not colon or not number.isdigit() or host == "unix":
        draft.keep(option)
        return
    if host not in VNC_LOOPBACK:
        draft.say("warning", f"-vnc {address}: other hosts have no such "
                  "address; use 127.0.0.1 or nothing")
    values.put("vnc", f"{host}:${{port.vnc.display}}")
    if (values.get("websocket") or "").isdigit():
        values.put("websocket", "${port.websocket}")
    values.drop("to")
    draft.change(option, values)


def spice(draft: Draft, option: Option) -> None:
    """Put the placeholders for SPICE's ports."""
    values = escaped(option)
    for key in ("port", "tls-port"):
        if (values.get(key) or "0") != "0":
            name = "spice" if key == "port" else "spice-tls"
            values.put(key, f"${{port.{name}}}")
    draft.change(option, values)


def chardev(draft: Draft, option: Option) -> None:
    """Drop a monitor's; put the placeholder for the port of a server."""
    values = option.values()
    name = values.get("id") or "chardev"
    if name in draft.chardevs and not elsewhere(draft, name):
        return
    if values.get("fd"):
        MANAGED(draft, option)
        return
    new = escaped(option)
    if (values.get("backend") in ("socket", "udp") and values.get("port")
            and values.get("server") in ON):
        new.put("port", f"${{port.{name}}}")
    elif values.get("backend") == "socket" and values.get("path") and (
            values.get("server") in ON):
        put_socket(draft, new, "path")
    draft.change(option, new)


def elsewhere(draft: Draft, name: str) -> bool:
    """Return whether something besides monitors uses a character device."""
    return any(f"chardev:{name}" == option.value
               or (option.name in ("device", "netdev", "object")
                   and option.values().get("chardev") == name)
               for option in argv.split(draft.running.argv[1:]))


SERVER = re.compile(r"((?:tcp|telnet|websocket):[^:,]*:)(\d+)((?:,.*)?)")


def server(draft: Draft, option: Option) -> None:
    """Put the placeholder for the port of -serial tcp:...,server."""
    found = SERVER.fullmatch(option.value)
    assert found
    before = [each for each in draft.options if each.name == option.name]
    name = f"{option.name}{len(before)}"
    draft.options.append(option.with_value(
        f"{spec.escape(found[1])}${{port.{name}}}{spec.escape(found[3])}"))


def stdio(draft: Draft, option: Option) -> None:
    """Keep what talks to a terminal, which is no more."""
    draft.say("warning", f"-{option.name} {option.value}".rstrip() + ": "
              "elsewhere there is no terminal for it")
    draft.keep(option)


def folder(draft: Draft, option: Option) -> None:
    """Keep a folder of firmware, which other hosts must have."""
    draft.say("warning", f"-L {option.value}: each host must have this folder "
              "with the same files")
    draft.options.append(option.with_value(spec.escape(
        draft.absolute(option.value))))


def always(_draft: Draft, _option: Option) -> bool:
    """Fits each option of that name."""
    return True


def has_type(*kinds: str) -> Callable[[Draft, Option], bool]:
    """Return a condition on what an option's first member is."""
    def fits(_draft: Draft, option: Option) -> bool:
        return option.values().get("type", "driver", "backend",
                                   "model") in kinds
    return fits


def is_server(_draft: Draft, option: Option) -> bool:
    """Return whether -serial and the like wait on a port."""
    return bool(SERVER.fullmatch(option.value)) and ",server" in option.value


def is_stdio(_draft: Draft, option: Option) -> bool:
    """Return whether an option means the terminal."""
    return option.name == "nographic" or option.value.endswith("stdio")


def by_descriptor(_draft: Draft, option: Option) -> bool:
    """Return whether a migration comes by a descriptor."""
    return option.value.startswith("fd:")


@dataclass(frozen=True)
class Rule:
    """A row: options, condition, what becomes of them."""

    name: str
    options: tuple[str, ...]
    act: Act
    fits: Callable[[Draft, Option], bool] = always


RULES = (
    Rule("descriptor", ("add-fd",), MANAGED),
    Rule("descriptor", ("incoming",), MANAGED, by_descriptor),
    Rule("own", ("qmp", "qmp-pretty", "monitor", "pidfile", "daemonize",
                 "incoming", "S", "D", "uuid", "loadvm", "runas", "chroot",
                 "preconfig"), drop),
    Rule("own", ("mon",), drop_monitor),
    Rule("name", ("name",), take_name),
    Rule("machine", ("machine", "M"), versioned),
    Rule("cpu", ("cpu",), host_cpu, has_type("host", "max")),
    Rule("snapshot", ("snapshot",), THROWN_AWAY),
    Rule("file of options", ("readconfig",), refused(
        "options that are not on the command line; put them there")),
    Rule("device", ("device",), device),
    Rule("shared folder", ("fsdev", "virtfs"), refused(
        "it shares a folder with the host. Unmount it and start the VM "
        "without")),
    Rule("tpm", ("tpmdev",), refused(
        "what the TPM knows is on this host. Start the VM without")),
    Rule("disk", ("blockdev",), blockdev),
    Rule("disk", ("drive",), drive),
    Rule("disk", ("", "hda", "hdb", "hdc", "hdd", "pflash", "cdrom"),
         image_alone),
    Rule("file", ("kernel", "initrd", "dtb", "bios", "option-rom"), firmware),
    Rule("tap", ("netdev", "nic", "net"), tap, has_type("tap", "bridge")),
    Rule("network", ("netdev", "nic", "net"), other_net),
    Rule("port", ("vnc",), vnc),
    Rule("port", ("spice",), spice),
    Rule("port", ("serial", "parallel", "gdb"), server, is_server),
    Rule("chardev", ("chardev",), chardev),
    Rule("debugger", ("gdb", "s"), drop),
    Rule("terminal", ("serial", "parallel", "nographic"), stdio, is_stdio),
    Rule("folder", ("L",), folder),
)


def files_wanted(line: tuple[str, ...], cwd: str,
                 disks: tuple[GuestDisk, ...]) -> list[str]:
    """Return the files whose content must be known: absolute paths."""
    names = {option.value for option in argv.split(line[1:])
             if option.name in ("kernel", "initrd", "dtb", "bios",
                                "option-rom")}
    return sorted({os.path.normpath(os.path.join(cwd, name))
                   for name in names}
                  | {disk.path for disk in disks if disk.read_only})


def unexplained(draft: Draft) -> Iterator[str]:
    """Yield what the guest has and the command line does not say."""
    running = draft.running
    named = [each for each in draft.devices if each]
    for name in sorted(set(running.peripheral) - set(named)):
        yield (f"device {name} is not on the command line: it was plugged in "
               "while the VM ran. Unplug it, or restart the VM with it")
    for name in sorted(set(named) - set(running.peripheral)):
        yield (f"device {name} is on the command line and no more in the "
               "guest. Plug it in again, or restart the VM without it")
    more = running.anonymous - draft.devices.count("")
    if more:
        yield (f"{running.anonymous} devices without id, but the command line "
               f"has {draft.devices.count('')}: something was plugged in or "
               "out while the VM ran")
    for disk in running.disks:
        if not disk.read_only and disk.name not in draft.disks:
            yield (f"disk {disk.name} has image {disk.path}, which the command "
                   "line does not name. Was a snapshot taken while the VM ran?")


def line_up(draft: Draft) -> None:
    """Apply RULES to each option."""
    options = argv.split(draft.running.argv[1:])
    # A monitor may come after its character device
    for option in options:
        if option.name == "mon":
            drop_monitor(draft, option)
        if option.name == "name":
            take_name(draft, option)
    for option in options:
        for rule in RULES:
            if option.name in rule.options and rule.fits(draft, option):
                draft.rule = rule.name
                rule.act(draft, option)
                break
        else:
            draft.keep(option)
    if not draft.has_machine:
        draft.options.insert(0, Option("machine", (
            "-machine", draft.running.machine.removesuffix("-machine"))))


def adopt(running: Running) -> Adoption:
    """Return the description of a QEMU, or why there can be none."""
    draft = Draft(running)
    draft.rule = "command line"
    try:
        line_up(draft)
    except argv.BadLine as error:
        draft.refuse(str(error))
        return Adoption(None, tuple(draft.findings))
    draft.rule = "hot-plug"
    if not any(each.level == "refused" for each in draft.findings):
        for text in unexplained(draft):
            draft.refuse(text)
    draft.rule = "name"
    uuid = "" if running.uuid == NO_UUID else running.uuid
    made = spec.Spec(draft.name, tuple(argv.join(draft.options)), uuid,
                     disk=draft.disks, net=draft.nets, file=draft.files)
    try:
        spec.check(made)
    except BadData as error:
        if not any(each.level == "refused" for each in draft.findings):
            draft.refuse(str(error))
    found = Adoption(made, tuple(draft.findings))
    return found if not found.refused else Adoption(None, found.findings)
