#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A video server in the guest: sends a film at a constant rate.

A client connects and sends one line, the rate in kbit/s. It is sent the film
in chunks, one each tenth of a second, again and again. The film is read from
the disk each time, as a real one would be, and each second of each client is
a line of a log.
"""

from __future__ import annotations

import os
import socket
import threading
import time

PORT = 7003
FILM = "/srv/video/film"
LOG = "/var/log/video.log"
CHUNKS = 10         # per second


def serve_client(connection: socket.socket, log: int) -> None:
    """Sends the film until the client goes away."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection, open(FILM, "rb") as film:
        rate = int(connection.makefile("r").readline())
        size = rate * 1000 // 8 // CHUNKS
        due = time.monotonic()
        number = 0
        while True:
            chunk = film.read(size)
            if len(chunk) < size:
                film.seek(0)
                chunk += film.read(size - len(chunk))
            # The page cache shall not have it next time
            os.posix_fadvise(film.fileno(), 0, film.tell(),
                             os.POSIX_FADV_DONTNEED)
            connection.sendall(chunk)
            number += 1
            if number % CHUNKS == 0:
                os.write(log, b"%d %d %d\n" % (time.time_ns(), rate, number))
            due += 1 / CHUNKS
            time.sleep(max(0.0, due - time.monotonic()))


def main() -> None:
    """Serves clients for ever, each in a thread."""
    log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def run(connection: socket.socket) -> None:
        try:
            serve_client(connection, log)
        except OSError:
            pass    # it went away

    with socket.create_server(("0.0.0.0", PORT)) as server:
        while True:
            connection, _ = server.accept()
            threading.Thread(target=run, args=(connection,),
                             daemon=True).start()


if __name__ == "__main__":
    main()
