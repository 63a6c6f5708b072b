"""Which proxy a connection takes.

Responsible for: a remote's own proxy, else the proxy variables of an environment that is passed in.
Not responsible for: `~/.netrc`, PAC files, the operating system's proxy settings: none is read.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from jupyter_hf_cache.storage.records import Remote


@dataclass(frozen=True, slots=True)
class ProxyRules:
    """Proxies of one remote; URLs may hold a password.

    Args:
        explicit: the remote's own proxy for every connection, or None.
        by_scheme: from the environment, by "http" and "https".
        bypass: the entries of `NO_PROXY`.
    """

    explicit: str | None = field(default=None, repr=False)
    by_scheme: Mapping[str, str] = field(default_factory=dict, repr=False)
    bypass: tuple[str, ...] = ()

    def choose(self, origin: str) -> str | None:
        """The proxy for an origin ("https://host:port"), or None for a direct connection.

        An environment's proxy is not asked for this machine itself: it could only reach its own.
        """
        if self.explicit:
            return self.explicit
        parts = urlsplit(origin)
        host = (parts.hostname or "").rstrip(".")
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        if _is_loopback(host) or any(_matches(entry, host, port) for entry in self.bypass):
            return None
        return self.by_scheme.get(parts.scheme)


def proxy_rules(remote: Remote, environ: Mapping[str, str]) -> ProxyRules:
    """The rules for one remote; lower-case variables win over upper-case ones, as in curl."""
    if remote.proxy_url:
        return ProxyRules(explicit=_with_login(remote))
    by_scheme: dict[str, str] = {}
    for scheme in ("http", "https"):
        found = _variable(environ, f"{scheme}_proxy") or _variable(environ, "all_proxy")
        if found:
            by_scheme[scheme] = _with_scheme(found)
    entries = _variable(environ, "no_proxy").replace(" ", ",").split(",")
    return ProxyRules(by_scheme=by_scheme, bypass=tuple(e.lower() for e in entries if e))


def _with_login(remote: Remote) -> str:
    url = _with_scheme(remote.proxy_url or "")
    if not remote.proxy_username:
        return url
    scheme, _, rest = url.partition("://")
    login = quote(remote.proxy_username, safe="")
    if remote.proxy_password:
        login += ":" + quote(remote.proxy_password, safe="")
    return f"{scheme}://{login}@{rest}"


def _with_scheme(url: str) -> str:
    return url if "://" in url else f"http://{url}"


def _variable(environ: Mapping[str, str], name: str) -> str:
    return (environ.get(name) or environ.get(name.upper()) or "").strip()


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def _matches(entry: str, host: str, port: int) -> bool:
    """One NO_PROXY entry: `*`, a name with its sub-domains, an address or a network."""
    if entry == "*":
        return True
    if "/" in entry:
        address = _address(host)
        try:
            return address is not None and address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    name, colon, wanted = entry.rpartition(":")
    if colon and wanted.isdigit() and (":" not in name or name.endswith("]")):
        if int(wanted) != port:
            return False
        entry = name
    name = entry.strip("[]").removeprefix("*").lstrip(".")
    if not name:
        return False
    return host == name or (_address(host) is None and host.endswith("." + name))


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
