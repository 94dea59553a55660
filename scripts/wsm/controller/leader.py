# SPDX-License-Identifier: GPL-2.0-or-later
"""Which of the controllers of a store acts: that which has its lock.

The lock is the kernel's: it ends with the process, however that ends.  It is
good on a local disk only.  Whoever takes it begins a new epoch in the store and
so at each agent that it gives an order.
"""

import fcntl
import os
import uuid
from typing import IO, Optional

from wsm.controller.store import Store, StoreGone


class Leader:
    """One controller's claim."""

    def __init__(self, store: Store, cluster: str, name: str) -> None:
        self.store = store
        self.cluster = cluster
        self.name = name
        self._stream: Optional[IO[str]] = None

    def leads(self) -> bool:
        """Return whether it is the leader, as far as it knows."""
        return self._stream is not None

    def take(self) -> bool:
        """Try to become the leader; return whether it is. Raise StoreGone."""
        if self._stream:
            return True
        path = self.store.path.with_name(self.store.path.name + ".lock")
        try:
            # pylint: disable-next=consider-using-with
            stream = path.open("a", encoding="ascii")
        except OSError as error:
            raise StoreGone(f"{path}: {error}") from error
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(stream.fileno()).st_ino != path.stat().st_ino:
                raise BlockingIOError("the lock was made anew")
            self.store.lead(self.cluster, self.name,
                            f"controller-{uuid.uuid4().hex[:12]}")
        except BlockingIOError:
            stream.close()
            return False
        except BaseException:
            stream.close()
            raise
        self._stream = stream
        return True

    def give(self) -> None:
        """Let another one lead."""
        self.store.epoch = 0
        if self._stream:
            self._stream.close()
        self._stream = None
