"""Who sent a request, and how they addressed us.

Responsible for: the peer's address, whether anything between the client and us forwarded the
request, which forwarding headers may be believed, and the scheme, host and prefix under which the
client sees us.
Not responsible for: deciding anything with these facts (`guard`, `entrance`).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^\s:@/\\?#\[\],]+)(?::(?P<port>[0-9]{1,5}))?")

# Any of these means that somebody passed the request on. configurable-http-proxy and
# jupyter-server-proxy send X-Forwarded-*, nginx is usually told to send X-Real-IP and X-Scheme,
# CDNs send the client-ip ones.
_FORWARDING_HEADERS = frozenset(
    {
        "forwarded",
        "via",
        "x-real-ip",
        "x-scheme",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-proxycontextpath",
        "true-client-ip",
        "cf-connecting-ip",
    }
)


def parse_networks(values: Iterable[str]) -> tuple[IPNetwork, ...]:
    """Read addresses and CIDR ranges ("10.0.0.0/8", "::1").

    Raises:
        ValueError: one of them is neither.
    """
    return tuple(ipaddress.ip_network(value.strip(), strict=False) for value in values)


# Every request asks for the same few addresses, names and connections.
@lru_cache(maxsize=128)
def parse_address(text: str) -> IPAddress | None:
    """An IP address, or None. IPv4 written as IPv6 (`::ffff:127.0.0.1`) counts as IPv4."""
    try:
        address = ipaddress.ip_address(text.strip().strip("[]").partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped if isinstance(mapped, ipaddress.IPv4Address) else address


@lru_cache(maxsize=128)
def split_host(value: str) -> tuple[str, str] | None:
    """A `Host` header as (lower-case name without brackets, port or ""); None if it is
    malformed.
    """
    match = _HOST.fullmatch(value.strip())
    if match is None:
        return None
    return match["name"].strip("[]").lower().rstrip("."), match["port"] or ""


def is_loopback_name(name: str) -> bool:
    """Whether a host name from `split_host` can only mean this machine."""
    address = parse_address(name)
    return name == "localhost" if address is None else address.is_loopback


@dataclass(frozen=True, slots=True)
class Sender:
    """The facts about one request's way to us.

    Args:
        peer: address of the socket's other end; "" for a Unix socket.
        forwarded: a header says that somebody passed the request on.
        trusted_proxy: that somebody is one of `trusted_proxies`.
        client: whom to count failures against: the peer, or what a trusted proxy names.
        scheme, host, prefix: how the client addressed us; prefix is "" or "/something" in front of
            our own base URL.
        same_machine: loopback peer and nothing in between.
    """

    peer: str
    forwarded: bool
    trusted_proxy: bool
    client: str
    scheme: str
    host: str
    prefix: str
    same_machine: bool

    @property
    def direct_loopback(self) -> bool:
        """From this machine, directly, and addressed to it by a name that cannot be rebound."""
        return self.same_machine and _is_loopback_host(self.host)

    @property
    def believable(self) -> bool:
        """Nothing in between, or somebody we trust."""
        return not self.forwarded or self.trusted_proxy


def identify(
    peer: str,
    scheme: str,
    host: str,
    headers: Mapping[str, str],
    trusted_proxies: tuple[IPNetwork, ...] = (),
) -> Sender:
    """Read the facts from a request.

    Args:
        peer: the socket's address, never one that a header named.
        scheme, host: as the server understood them.
        headers: request headers; looked up in lower case as well as in their usual form.
    """
    if not _is_forwarded(frozenset(headers)):
        return _direct(peer, scheme, host)
    found = {name.lower(): value for name, value in headers.items()}
    address = parse_address(peer)
    trusted = address is not None and any(address in network for network in trusted_proxies)
    client, prefix = peer, ""
    if trusted:
        client = _last_untrusted(found.get("x-forwarded-for", ""), trusted_proxies) or peer
        told = _first(found.get("x-forwarded-proto") or found.get("x-scheme", "")).lower()
        scheme = told if told in ("http", "https") else scheme
        told_host = _first(found.get("x-forwarded-host", ""))
        host = told_host if split_host(told_host) else host
        prefix = _clean_prefix(_first(found.get("x-forwarded-prefix", "")))
    return Sender(
        peer=peer,
        forwarded=True,
        trusted_proxy=trusted,
        client=client,
        scheme=scheme,
        host=host,
        prefix=prefix,
        same_machine=False,
    )


@lru_cache(maxsize=128)
def _is_forwarded(names: frozenset[str]) -> bool:
    """Whether any of a request's header names says that somebody passed it on."""
    lower = {name.lower() for name in names}
    return any(name in _FORWARDING_HEADERS or name.startswith("x-forwarded-") for name in lower)


@lru_cache(maxsize=128)
def _direct(peer: str, scheme: str, host: str) -> Sender:
    """Who sends without anybody in between."""
    address = parse_address(peer)
    return Sender(
        peer=peer,
        forwarded=False,
        trusted_proxy=False,
        client=peer,
        scheme=scheme,
        host=host,
        prefix="",
        same_machine=address is not None and address.is_loopback,
    )


@lru_cache(maxsize=128)
def _is_loopback_host(host: str) -> bool:
    name = split_host(host)
    return name is not None and is_loopback_name(name[0])


def _first(value: str) -> str:
    return value.split(",")[0].strip()


def _last_untrusted(chain: str, trusted: tuple[IPNetwork, ...]) -> str:
    """The right-most address of X-Forwarded-For that is not one of our proxies: what is left of it
    is hearsay.
    """
    for candidate in reversed(chain.split(",")):
        address = parse_address(candidate)
        if address is None:
            return ""
        if not any(address in network for network in trusted):
            return str(address)
    return ""


def _clean_prefix(value: str) -> str:
    if not value.startswith("/") or value.startswith("//") or ".." in value:
        return ""
    return quote(value.rstrip("/"), safe="/%~@:+,;=")
