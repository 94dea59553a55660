# SPDX-License-Identifier: GPL-2.0-or-later
"""Speak to the controllers of a cluster: that which leads answers."""

from typing import Any, Mapping, Optional

from wsm.cli.agents import TIMEOUT, Agent, AgentSaid, NoAnswer
from wsm.cli.home import CliError, Home
from wsm.plan.plain import to_plain

# What a controller says, and the exit status for it
STATUS = {"NotNow": 4, "BadData": 2, "StoreGone": 5, "Deposed": 5}


class Daemon(Agent):
    """One of them."""

    kind = "controller"

    def where(self, name: str) -> str:
        """Return its host:port; raise CliError."""
        found = self.cluster.controllers.get(name)
        if found is None:
            raise CliError(f"there is no controller {name}", 2)
        return found


def ask(home: Home, path: str, body: Optional[Mapping[str, Any]] = None,
        timeout: float = TIMEOUT, **query: str) -> Any:
    """
    Ask the controller that leads; raise CliError.

    With @body it is an order.
    """
    names = sorted(home.cluster.controllers)
    if not names:
        raise CliError("this cluster has no controller: 'wsmctl controller "
                       "add'", 5)
    silent: list[str] = []
    aside: Any = None
    for name in names:
        daemon = Daemon(home, name)
        try:
            if body is not None:
                return daemon.ask("POST", path, body, timeout)
            found = daemon.get(path, timeout, **query)
            if not (isinstance(found, dict) and found.get("leads") is False):
                return found
            aside = found       # what one says that stands by
        except NoAnswer as error:
            silent.append(str(error))
        except AgentSaid as error:
            if error.code not in ("Deposed", "StoreGone"):
                raise CliError(str(error), STATUS.get(error.code, 1)
                               ) from error
            silent.append(str(error))
        finally:
            daemon.close()
    if aside:
        return aside
    raise CliError("; ".join(silent), 5)


def tell_hosts(home: Home) -> None:
    """Tell the controller which hosts there are; raise CliError."""
    ask(home, "/hosts", {"hosts": {
        name: to_plain(entry) for name, entry in home.cluster.hosts.items()}})
