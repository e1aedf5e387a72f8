"""What holds for every request and every answer: the token in the address, and what a browser may do with an answer."""

import secrets
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmb.server.answers import error_response
from mmb.server.limits import KEPT_REQUESTS, REQUESTS

TOKEN_BYTES = 16  # of a token that is made at the start: 128 random bits cannot be guessed
SHORTEST = 16  # minimum length in characters of a token that is given
HEALTH = "/healthz"  # the only path without a token
WITHOUT_TOKEN = "The address is not complete: its first part, the token, is missing or wrong. Ask for the whole one."
OF_THE_PAGE = ("", "static", "studies", "info")  # first parts of the paths that the page asks for
OWN_PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy of the server's own page: nothing inline, and nothing from elsewhere."""
RESULT_PAGE = (
    "sandbox allow-scripts allow-modals; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""That of ``summary.html``: its script runs without the server's origin, so that it can ask the server for nothing, nor
anyone else. Modals are for printing."""
DEFAULTS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # the address holds the token
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
}
"""Headers of every answer that does not set them itself. Whatever an answer holds, no browser runs it as a page."""


class Guard:
    """Middleware that answers requests without the token with status 401 and a sentence, and adds `DEFAULTS`.

    The token is the first part of the path; it stays in the scope as ``root_path``. An empty one is not asked for.
    Only requests with it count towards `REQUESTS`, so that others cannot keep them from being answered. Nor do files of
    a study, whose number the study limits. `KEPT_REQUESTS` are kept for the page.
    A redirect names neither scheme nor host: behind a web server with TLS, it would lead to http, with the token.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app, self.token, self.running = app, token, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in DEFAULTS.items():
                    headers.setdefault(name, value)
                if "location" in headers:
                    there = urlsplit(headers["location"])
                    headers["location"] = f"/{there.path.lstrip('/')}{there.query and f'?{there.query}'}"
            await send(message)

        if scope["path"] == HEALTH:
            await self.app(scope, receive, send_guarded)
            return
        if self.token:
            first = scope["path"][1:].partition("/")[0].encode(errors="replace")
            if not secrets.compare_digest(first, self.token.encode()):
                await PlainTextResponse(WITHOUT_TOKEN, 401)(scope, receive, send_guarded)
                return
            scope = {**scope, "root_path": f"/{self.token}"}
        first = path_of(scope)[1:].partition("/")[0]
        if (scope.get("method"), first) == ("PUT", "studies"):
            await self.app(scope, receive, send_guarded)
            return
        if self.running >= (limit := REQUESTS if first in OF_THE_PAGE else REQUESTS - KEPT_REQUESTS):
            busy = HTTPException(503, f"The server answers {limit} such requests, its limit; try again.")
            await error_response(busy)(scope, receive, send_guarded)
            return
        self.running += 1
        try:
            await self.app(scope, receive, send_guarded)
        finally:
            self.running -= 1


def path_of(scope: Scope) -> str:
    """Return the path of a request without the token."""
    return scope.get("path", "").removeprefix(scope.get("root_path", ""))


def chosen_token(given: str | None, host: str) -> str:
    """Return the token of a server: a random one if none is given, and an empty one for ``none``.

    Raises ValueError for ``none`` if others than users of this machine reach the host, and for a token that can be
    guessed or cannot stand in a path.
    """
    if given is None:
        return secrets.token_urlsafe(TOKEN_BYTES)
    if given == "none":
        if not is_loopback(host):
            raise ValueError(f"--token none: {host} is reached from other machines; leave --token out, or give one.")
        return ""
    if len(given) < SHORTEST or not given.isascii() or not given.replace("-", "").replace("_", "").isalnum():
        raise ValueError(f"--token: expected at least {SHORTEST} letters, digits, hyphens or underscores, or none.")
    return given


def is_loopback(host: str) -> bool:
    """Return whether only users of this machine reach an address to listen on."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
