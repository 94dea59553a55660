# SPDX-License-Identifier: GPL-2.0-or-later
"""Which of the controllers of a store acts: that which has its lock.

Whoever takes it begins a new epoch in the store and so at each agent that it
gives an order.
"""

import uuid

from wsm.controller.store import Store


class Leader:
    """One controller's claim."""

    def __init__(self, store: Store, cluster: str, name: str) -> None:
        self.store = store
        self.cluster = cluster
        self.name = name

    def leads(self) -> bool:
        """Return whether it is the leader, as far as it knows."""
        return bool(self.store.epoch) and self.store.database.held()

    def take(self) -> bool:
        """Try to become the leader; return whether it is. Raise StoreGone."""
        if self.leads():
            return True
        self.store.epoch = 0            # of a lock that was lost
        if not self.store.database.take():
            return False
        try:
            self.store.lead(self.cluster, self.name,
                            f"controller-{uuid.uuid4().hex[:12]}")
        except BaseException:
            self.store.database.give()
            raise
        return True

    def give(self) -> None:
        """Let another one lead."""
        self.store.give()
        self.store.database.give()
