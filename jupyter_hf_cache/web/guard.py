"""The one guard in front of every route, content and REST, in every app.

It refuses what a web page of somebody else can make a browser send: requests to a rebound host
name, cross-site requests, and forms that ride on a cookie.

Responsible for: that refusal, as a pure function over the request's headers.
Not responsible for: who the caller is (`entrance`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from jupyter_hf_cache.errors import Refused
from jupyter_hf_cache.web.network import Sender, parse_address, split_host

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

_DEFAULT_PORTS = {"http": "80", "https": "443"}
# What a page may send across sites without asking first.
_FORM_TYPES = frozenset(
    {"", "application/x-www-form-urlencoded", "multipart/form-data", "text/plain"}
)


@dataclass(frozen=True, slots=True)
class HostRules:
    """Which `Host` headers are ours.

    Args:
        names: host names and addresses in lower case, beside localhost and the loopback addresses.
        any_host: every name (Jupyter's `allow_remote_access`).
        any_address: every literal IP address: bound to all interfaces. A name can be rebound by
            whoever owns it, an address cannot.
    """

    names: frozenset[str] = frozenset()
    any_host: bool = False
    any_address: bool = False

    def allows(self, host: str) -> bool:
        """Whether a `Host` header, port included, names this server."""
        parts = split_host(host)
        if parts is None:
            return False
        name = parts[0]
        if self.any_host or name == "localhost" or name in self.names:
            return True
        address = parse_address(name)
        return address is not None and (
            address.is_loopback or self.any_address or str(address) in self.names
        )


def check(
    method: str,
    headers: Mapping[str, str],
    sender: Sender,
    hosts: HostRules,
    xsrf_valid: Callable[[], bool],
    *,
    allowed_page: bool = False,
) -> None:
    """Let the request pass, or refuse it.

    Args:
        headers: a case-insensitive mapping.
        allowed_page: its `Origin` is one whose pages the operator lets read (`cors`).
        xsrf_valid: whether the request proves by the XSRF token that our own page sent it; called
            only when it matters.

    Raises:
        Refused: 403, with what to change.
    """
    _check_host(sender.host, hosts)
    if not allowed_page:
        _check_site(headers)
        _check_origin(headers.get("Origin"), sender)
    if method not in SAFE_METHODS:
        _check_form(headers, xsrf_valid)


def is_browser(headers: Mapping[str, str]) -> bool:
    """Whether a browser's fetch metadata is there. Such a request is never asked for Basic
    credentials: the browser would keep them and send them by itself from then on."""
    return any(name.lower().startswith("sec-fetch-") for name in headers)


def _check_host(host: str, hosts: HostRules) -> None:
    if not hosts.allows(host):
        raise Refused(
            "The cache does not answer to this host name.",
            advice="If it should, add the name to c.HfCache.allowed_hosts.",
        )


def _check_site(headers: Mapping[str, str]) -> None:
    if headers.get("Sec-Fetch-Site", "none").lower() not in ("same-origin", "none"):
        raise Refused(
            "A page of another site asked for this.",
            advice="Open the address directly, or use a program instead of a web page.",
        )


def _check_origin(origin: str | None, sender: Sender) -> None:
    if origin is None or is_own(origin, sender):
        return
    raise Refused(
        "The Origin of this request is not this server.",
        advice="Open the page under the server's own address.",
    )


def is_own(origin: str, sender: Sender) -> bool:
    """Whether an `Origin` is this server. Compared as Jupyter does, by host and port: the scheme is
    often changed by a proxy in between.
    """
    parts = urlsplit(origin.lower())
    ours, theirs = split_host(sender.host), split_host(parts.netloc)
    if ours is None or theirs is None or parts.scheme not in _DEFAULT_PORTS:
        return False
    default = _DEFAULT_PORTS[parts.scheme]
    return (ours[0], ours[1] or default) == (theirs[0], theirs[1] or default)


def _check_form(headers: Mapping[str, str], xsrf_valid: Callable[[], bool]) -> None:
    content_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if content_type in _FORM_TYPES and "Cookie" in headers and not xsrf_valid():
        raise Refused(
            "A form with cookies needs the X-XSRFToken header.",
            advice="Send JSON (Content-Type: application/json), or leave the cookies out.",
        )
