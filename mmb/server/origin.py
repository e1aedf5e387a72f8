"""Refusal of requests by their origin: those that pages of other sites make a browser send to this server."""

import socket
from collections.abc import Collection, Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from fastapi import HTTPException, Request

from mmb.server.guard import path_of


def require_own(request: Request, names: Collection[str]) -> None:
    """Refuse a request to another host name than the server's, or from another site's page.

    A page that may not read answers can still send requests that change something, or start minutes of work. It may
    only lead its reader to the server's own page, ``/``, which holds no patient's data and starts nothing. A page whose
    own host name is redirected here (DNS rebinding) can read as well; requests to an IP address are not affected by
    that.

    The server's names are localhost, the machine's own name, any address, and ``names`` (with the port in a browser's
    address, if there is one). Another Host is refused with status 400, a request by a page of another origin with
    403.
    """
    host = request.headers.get("host", "")
    if not _leads_here(urlsplit(f"//{host}").hostname, names):
        raise HTTPException(
            400, f"Host {host[:100]!r} is not a name of this server; its option names adds further ones."
        )
    if request.method == "GET" and path_of(request.scope) == "/" and _is_navigation(request.headers):
        return
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site", "none")
    page = urlsplit(origin or "")
    if site not in ("same-origin", "none") or (origin and page.netloc not in (host, *names)):
        raise HTTPException(
            403, "Another site's page sent this; if it is this server's own, add it to the option names."
        )


def _is_navigation(headers: Mapping[str, str]) -> bool:
    return headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"


def _leads_here(name: str | None, names: Collection[str]) -> bool:
    if name in ("localhost", socket.gethostname().lower(), *(each.partition(":")[0] for each in names)):
        return True
    try:
        return ip_address(name or "") is not None
    except ValueError:
        return False
