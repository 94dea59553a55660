# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests whose memory is moved: siblings, and two that have nothing in common.

The siblings are machines of one golden image, each booted by itself, with a
role of its own.  The state and the disk of each are kept, so that all ways
see the same memory.
"""

import tempfile
import threading
import time
from contextlib import closing
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from dev.bench.debian_guest import (BOOT_SECONDS, RECIPE, DebianConfig, Role,
                                    debian_config, run_for)
from dev.bench.settings import Settings
from dev.bench.workloads import UNLIMITED_SECONDS, Web
from dev.demo.client import Job
from dev.demo.network import Network
from dev.rig.basics import TestFailure, require

# The kernel is on the disk, as in all machines that boot from it
SIBLING = replace(RECIPE, name='siblings', boot=True,
                  files=(*RECIPE.files, 'fill.py', 'read.py'))
ROLE_SECONDS = 30.0             # of work, before the state is kept
UNIQUE, RANDOM = 0, 1           # see guest/fill.py
FILL_SHARE = 5 / 8              # of the guest's RAM
SIBLINGS = ('idle', 'pgbench', 'web', 'build', 'fio', 'files')
HARD = ('unique', 'random')


def rest(_network: Network) -> None:
    time.sleep(ROLE_SECONDS / 3)


def serve_files(network: Network) -> None:
    with (tempfile.TemporaryDirectory() as folder,
          closing(Web(network, Settings(), Path(folder)))
          as clients):
        clients.start()
        time.sleep(ROLE_SECONDS)
        clients.stop()
        require(not clients.errors, 'the web server lost a connection')


def job(*request: object) -> Role:
    """A sibling that runs this job of the agent for a while."""
    return Role(str(request[0]), lambda network: run_for(
        network, ROLE_SECONDS, *request))


def read_files(network: Network) -> None:
    """Once all of them."""
    start(network, 'read', 'read', 0).close()


def start(network: Network, word: str, *request: object) -> Job:
    """A job that goes on; returns when it has said this."""
    said = threading.Event()
    found = Job(network, *request,
                on_line=lambda line: said.set() if line == word else None)
    if not said.wait(BOOT_SECONDS):
        found.close()
        raise TestFailure(f'job {request[0]} does not say "{word}"')
    return found


def fill(kind: int, memory: int, network: Network) -> None:
    """The job holds the memory as long as its connection is there."""
    start(network, 'ready', 'fill', round(memory * FILL_SHARE), kind)


def roles(memory: int) -> dict[str, Role]:
    found = [
        Role('idle', rest),
        job('pgbench', 2, UNLIMITED_SECONDS),
        Role('web', serve_files),
        job('build', 10), job('fio', 50),
        Role('files', read_files),
        Role('unique', partial(fill, UNIQUE, memory), 'idle'),
        Role('random', partial(fill, RANDOM, memory), 'idle')]
    return {role.name: role for role in found}


@cache
def guest_config(name: str, memory: int) -> DebianConfig:
    """Made now, unless the cache on the disk has it."""
    role = roles(memory)[name]
    if role.base:
        guest_config(role.base, memory)
    return debian_config(memory, SIBLING, role)
