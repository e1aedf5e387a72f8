"""Which requests are refused for where they come from: what other sites' pages have a browser ask of this server."""

from __future__ import annotations

import socket
from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit

from fastapi import HTTPException, Request


def require_own(request: Request, names: Collection[str]) -> None:
    """Refuse a request by another name than the server's, or from another site's page unless it only reads.

    A page that may not read an answer can still send what changes something; and one whose own name is made to lead
    here (DNS rebinding) may read too, as far as its browser knows. An address leads where it says.

    Args:
        request: as it came.
        names: the server's, beside localhost, the machine's own name and any address; with the port in a browser's
            address, if there is one.

    Raises:
        HTTPException: 400, the Host is none of the server's names; 403, a page of another origin asks for a change.
    """
    host = request.headers.get("host", "")
    if not _leads_here(urlsplit(f"//{host}").hostname, names):
        raise HTTPException(400, f"Host {host[:100]!r} is no name of this server; --names takes further ones.")
    if request.method in ("GET", "HEAD"):
        return
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site", "none")
    page = urlsplit(origin or "")
    if site not in ("same-origin", "none") or (origin and page.netloc not in (host, *names)):
        raise HTTPException(403, "Not from another site's page; if it is this server's own, give its name to --names.")


def _leads_here(name: str | None, names: Collection[str]) -> bool:
    if name in ("localhost", socket.gethostname().lower(), *(one.partition(":")[0] for one in names)):
        return True
    try:
        return ip_address(name or "") is not None
    except ValueError:
        return False
