#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent inside the demo's guest.

It needs nothing but python3-minimal. Two services run it:

``agent.py echo``
    answers every UDP packet at once, with the guest's clock added: the
    heartbeat that a client outside the guest measures.

``agent.py control``
    runs one of a fixed set of jobs for each TCP connection. The client
    sends one line (name and arguments), the agent answers with lines:
    ``| text`` for each line of output, and at the end ``= exit-code``. A
    further line from the client, or its going away, ends the job.
"""

from __future__ import annotations

import glob
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time

ECHO_PORT = 7001
CONTROL_PORT = 7002

BALANCES = """
select 'accounts', sum(abalance) from pgbench_accounts
union all select 'branches', sum(bbalance) from pgbench_branches
union all select 'tellers', sum(tbalance) from pgbench_tellers
union all select 'history', coalesce(sum(delta), 0) from pgbench_history
union all select 'transactions', count(*) from pgbench_history
"""


# All connections but those in the guest itself
END_CLIENTS = """
select count(pg_terminate_backend(pid)) from pg_stat_activity
where client_addr is not null
"""

# Accounts whose balance is not what the transfers say
BANK_WRONG = """
with moved as (
    select source as account, -amount as amount from transfers where id > 0
    union all select target, amount from transfers where id > 0),
sums as (select account, sum(amount) as amount from moved group by account)
select 'wrong', count(*) from accounts a left join sums s on s.account = a.id
where a.balance <> 1000000 + coalesce(s.amount, 0)
"""
BANK_DONE = "select id from transfers where id > 0"

FIO_FILE = "/srv/fio/data"
FIO_LOG = "/run/fio"


def as_postgres(*command: str) -> list[str]:
    """Returns the command line that runs command as the database's owner."""
    return ["setpriv", "--reuid=postgres", "--regid=postgres",
            "--init-groups", "env", "-C", "/", *command]


def job_command(name: str, args: list[str]) -> list[str]:
    """Returns the command line of a job.

    :raise KeyError: there is no such job.
    :raise ValueError: an argument is not a number.
    """
    binaries = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
    version = binaries.split("/")[4]
    numbers = [str(int(arg)) for arg in args]
    jobs = {
        "hello": ["uname", "-sr"],
        "ready": as_postgres(f"{binaries}/pg_isready", "-t", "0"),
        "pgbench": as_postgres(
            f"{binaries}/pgbench", "-n", "-P", "1",
            "-c", *numbers[:1], "-j", *numbers[:1], "-T", *numbers[1:2],
            "pgbench"),
        "balances": as_postgres(
            "psql", "-X", "-A", "-t", "-F", " ", "-c", BALANCES, "pgbench"),
        "amcheck": as_postgres(
            f"{binaries}/pg_amcheck", "--install-missing",
            "--heapallindexed", "--verbose", "pgbench"),
        "stop-database": [
            "pg_ctlcluster", version, "main", "stop", "-m", "fast"],
        "checksums": as_postgres(
            f"{binaries}/pg_checksums", "--check",
            "-D", f"/var/lib/postgresql/{version}/main"),
        "end-clients": as_postgres(
            "psql", "-X", "-A", "-t", "-c", END_CLIENTS, "postgres"),
        "fio": [
            "fio", "--name=mix", f"--filename={FIO_FILE}", "--rw=randrw",
            "--bs=4k", "--direct=1", "--ioengine=libaio", "--iodepth=4",
            "--thread", "--time_based", "--runtime=3600",
            f"--rate_iops={','.join(2 * numbers[:1])}",
            f"--write_lat_log={FIO_LOG}", "--log_unix_epoch=1"],
        "bank-check": as_postgres(
            "psql", "-X", "-A", "-t", "-F", " ", "-c", BANK_WRONG,
            "-c", BANK_DONE, "bank"),
        "bonnie": ["python3", "/opt/demo/bonnie.py", "once", *numbers[:2]],
        "bonnie-loop": [
            "python3", "/opt/demo/bonnie.py", "loop", *numbers[:2]],
        "fio-log": ["cat", f"{FIO_LOG}_clat.1.log"],
        "build": ["python3", "/opt/demo/build.py", *numbers[:1]],
        "fill": ["python3", "/opt/demo/fill.py", *numbers[:2]],
        "read": ["python3", "/opt/demo/read.py", *numbers[:1]],
        "sync": ["sync"],
        "freeze": ["fsfreeze", "-f", "/"],
        "poweroff": ["systemctl", "poweroff", "--no-block"],
    }
    return jobs[name]


def serve_job(connection: socket.socket) -> None:
    """Runs the job that the client of connection asks for."""
    with connection:
        request = connection.makefile("r").readline().split()
        try:
            command = job_command(request[0], request[1:])
        except (IndexError, KeyError, ValueError) as error:
            connection.sendall(f"| bad request: {error}\n= 127\n".encode())
            return
        # pylint: disable-next=consider-using-with
        job = subprocess.Popen(command, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT,
                               start_new_session=True)
        try:
            code = relay_output(connection, job)
            connection.sendall(f"= {code}\n".encode())
        except OSError:
            pass
        finally:
            if job.poll() is None:
                os.killpg(job.pid, signal.SIGINT)
                job.wait()


def relay_output(connection: socket.socket,
                 job: subprocess.Popen[bytes]) -> int:
    """Sends the job's output to the client until one of them ends."""
    assert job.stdout is not None
    output = job.stdout.fileno()
    rest = b""
    while True:
        ready, _, _ = select.select([output, connection], [], [])
        if connection in ready:
            os.killpg(job.pid, signal.SIGINT)
            return job.wait()
        data = os.read(output, 65536)
        if not data:
            return job.wait()
        *lines, rest = (rest + data).split(b"\n")
        if lines:
            connection.sendall(b"".join(b"| %s\n" % line for line in lines))


def serve_control() -> None:
    """Serves jobs for ever, each in a thread."""
    with socket.create_server(("0.0.0.0", CONTROL_PORT)) as server:
        while True:
            connection, _ = server.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=serve_job, args=(connection,),
                             daemon=True).start()


def serve_echo() -> None:
    """Answers UDP packets for ever."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("0.0.0.0", ECHO_PORT))
        while True:
            data, sender = server.recvfrom(64)
            server.sendto(b"%s %d" % (data, time.time_ns()), sender)


if __name__ == "__main__":
    {"echo": serve_echo, "control": serve_control}[sys.argv[1]]()
