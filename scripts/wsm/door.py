# SPDX-License-Identifier: GPL-2.0-or-later
"""What the doors of agents and controllers have in common.

HTTPS with certificates at both ends, JSON inside; what goes wrong becomes an
answer with a code and a text.
"""

import json
import logging
from typing import Any, Awaitable, Callable, Mapping

from aiohttp import web

from wsm import pki
from wsm.plan.plain import BadData, to_plain

BODY_LIMIT = 1 << 20
Json = Mapping[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class NotAllowed(Exception):
    """A certificate that does not give this right."""


def identity(request: web.Request, cluster: str) -> pki.Identity:
    """Return whose certificate it is; raise NotAllowed."""
    peer = request.transport and request.transport.get_extra_info("peercert")
    found = pki.identity(peer or {}, cluster)
    if found is None:
        raise NotAllowed(f"the certificate is none of cluster {cluster}")
    return found


def answer(value: Any, status: int = 200) -> web.Response:
    """Return a dataclass, or what it consists of, as JSON."""
    return web.json_response(value, status=status, dumps=lambda data:
                             json.dumps(plain(data)))


def plain(value: Any) -> Any:
    """Return @value with dataclasses in it as JSON has them."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return to_plain(value)


async def body_of(request: web.Request) -> Json:
    """Return the JSON object that was sent; raise BadData."""
    try:
        data = await request.json()
    except (ValueError, RecursionError) as error:
        raise BadData(f"no JSON: {error}") from error
    if not isinstance(data, dict):
        raise BadData("no JSON object")
    return data


def guarded(let_in: Callable[[web.Request], str],
            status: Mapping[type[Exception], int],
            log: logging.Logger) -> Any:
    """
    Return the middleware of a door.

    @let_in returns who asks, which is request["who"] then, or raises
    NotAllowed.  @status is that of what may go wrong; the first that fits.
    """
    @web.middleware
    async def guard(request: web.Request,
                    handler: Handler) -> web.StreamResponse:
        try:
            request["who"] = let_in(request)
            return await handler(request)
        except NotAllowed as error:
            return answer({"code": "not-allowed", "text": str(error)}, 403)
        except web.HTTPException as error:
            return answer({"code": "http", "text": error.reason},
                          error.status)
        except Exception as error:  # pylint: disable=broad-exception-caught
            return went_wrong(request, error)

    def went_wrong(request: web.Request, error: Exception) -> web.Response:
        for kind, number in status.items():
            if isinstance(error, kind):
                return answer({"code": type(error).__name__, "text": (
                    str(error) or type(error).__name__)[:4000]}, number)
        log.error("%s", request.path, exc_info=error)
        return answer({"code": "bug", "text": f"{type(error).__name__}: see "
                       f"the log of {log.name}"}, 500)

    return guard
