# SPDX-License-Identifier: GPL-2.0-or-later
"""Orders from a browser: only if our own page gives them.

A browser shows its certificate to us whoever has made the page that it is
told to ask us by.  So an order that a browser sends must say that it comes
from our page (Origin, Sec-Fetch-Site), and must have a token that only who can
read our answers knows; it belongs to one certificate and one run of ours.
"""

import hashlib
import hmac
import secrets
from urllib.parse import urlsplit

from aiohttp import web

from wsm.door import NotAllowed
from wsm.plan.plain import BadData

TOKEN = "X-Wsm-Token"
# What a form can send without asking us first
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data",
         "text/plain")


def origin_of(text: str) -> str:
    """Return the HOST:PORT that a browser names; raise BadData."""
    try:
        return urlsplit(text).netloc
    except ValueError as error:
        raise BadData(f"Origin: {text[:80]!r} is no address") from error


class Tokens:
    """Makes tokens, and knows its own."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def of(self, request: web.Request) -> str:
        """Return the token of who asks."""
        ssl = request.transport and request.transport.get_extra_info(
            "ssl_object")
        certificate = (ssl and ssl.getpeercert(True)) or b""
        return hmac.new(self._secret, hashlib.sha256(certificate).digest(),
                        hashlib.sha256).hexdigest()

    def check(self, request: web.Request) -> None:
        """Refuse an order of a browser that is not our page's."""
        headers = request.headers
        if headers.get("Content-Type", "").split(";")[0].strip() in FORMS:
            raise NotAllowed("a form gives no orders: send JSON")
        if not any(name in headers for name in (
                "Origin", "Sec-Fetch-Site", "Sec-Fetch-Mode", TOKEN)):
            return                      # no browser
        if headers.get("Sec-Fetch-Site", "same-origin") != "same-origin" or (
                origin_of(headers.get("Origin", "")) != headers.get("Host")):
            raise NotAllowed("this order comes from a page of somebody else: "
                             "only the controller's own page gives orders")
        given = headers.get(TOKEN, "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, self.of(request).encode()):
            raise NotAllowed("the page is of another certificate, or from "
                             "before the controller's last start: load it "
                             "again")
