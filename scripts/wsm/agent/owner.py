# SPDX-License-Identifier: GPL-2.0-or-later
"""Whose a VM is, and whose orders count: files that outlive everything.

owner.json follows QEMU, never the other way round; it is written before the
step that it announces.  A VM is booted only where it says 'owner'.
"""

from dataclasses import dataclass
from pathlib import Path

from wsm import durable
from wsm.plan.ends import File

HOLD = 30.0             # s that a controller is the only one after its word


class Fenced(Exception):
    """An order that does not count; says whose do."""


@dataclass(frozen=True)
class Owner:
    """The content of owner.json."""

    state: File = File.NONE
    epoch: int = 0
    move: str = ""
    peer: str = ""
    since: float = 0.0


@dataclass(frozen=True)
class Held:
    """The controller whose orders count."""

    epoch: int = 0
    instance: str = ""


class Owners:
    """All owner.json of a host."""

    def __init__(self, state: Path) -> None:
        self._vms = state / "vm"

    def path(self, name: str) -> Path:
        """Return where the file of a VM is."""
        return self._vms / name / "owner.json"

    def get(self, name: str) -> Owner:
        """Return what is known of a VM."""
        return durable.load(Owner, self.path(name)) or Owner()

    def put(self, name: str, owner: Owner) -> None:
        """
        Write it, durably.

        An epoch never goes back; writing the same again is no change.
        """
        old = self.get(name)
        if owner.epoch < old.epoch:
            raise Fenced(f"{name}: epoch {owner.epoch} is older than "
                         f"{old.epoch}, in which it is {old.state.value}")
        if (owner.state, owner.epoch, owner.move) != (old.state, old.epoch,
                                                      old.move):
            durable.save(self.path(name), owner)

    def forget(self, name: str) -> None:
        """Remove it."""
        durable.remove(self.path(name))

    def names(self) -> list[str]:
        """Return the VMs that have one."""
        return sorted(path.parent.name
                      for path in self._vms.glob("*/owner.json"))


class Gate:
    """Lets only one controller act: that with the highest epoch."""

    def __init__(self, state: Path, now: float = 0.0) -> None:
        self._path = state / "controller.json"
        self.held = durable.load(Held, self._path) or Held()
        # Who it was may be about to speak, as far as a new agent knows
        self._heard = now if self.held.instance else float("-inf")

    def admit(self, epoch: int, instance: str, now: float) -> None:
        """
        Let an order through or raise Fenced.

        @now is a clock that never goes back.  Another controller must have a
        higher epoch, and wait until the present one was silent for HOLD.
        """
        if epoch < self.held.epoch:
            raise Fenced(f"epoch {epoch} is over: it is {self.held.epoch}, "
                         f"held by {self.held.instance}")
        if instance != self.held.instance and self.held.instance:
            if epoch == self.held.epoch:
                raise Fenced(f"epoch {epoch} is held by "
                             f"{self.held.instance}")
            if now - self._heard < HOLD:
                raise Fenced(f"held by {self.held.instance}, which was heard "
                             f"{now - self._heard:.0f} s ago; wait "
                             f"{HOLD:.0f} s of silence")
        if (epoch, instance) != (self.held.epoch, self.held.instance):
            durable.save(self._path, Held(epoch, instance))
            self.held = Held(epoch, instance)
        self._heard = now

    def release(self, instance: str) -> None:
        """Let another one in at once: this one has ended in good order."""
        if instance == self.held.instance:
            self._heard = float("-inf")
