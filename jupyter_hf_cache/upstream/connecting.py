"""Connections that come about in time, or not at all.

Responsible for: that looking up a name and trying its addresses take no longer together than the
connect time-out. The system's resolver knows no time-out of ours, and without a network may take
half a minute; and a name with eight addresses would be given eight times the time.
Not responsible for: what is sent over a connection, TLS, or trying again (`client`).
"""

from __future__ import annotations

import ipaddress
import itertools
import socket
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util import connection

_MOST_ADDRESSES = 4
# What a connection without a time-out gets; none of ours is without.
_DEFAULT_SECONDS = 10.0


@dataclass(slots=True)
class _Lookup:
    """One question to the resolver, in a thread of its own."""

    done: threading.Event = field(default_factory=threading.Event)
    addresses: list[str] = field(default_factory=list)
    error: OSError | None = None


class Names:
    """Looks names up, with a time limit. Thread-safe.

    A lookup cannot be broken off. One that hangs is left to itself, and whoever asks for the same
    name meanwhile waits for it instead of starting another.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, _Lookup] = {}

    def resolve(self, host: str, seconds: float) -> list[str]:
        """Return the addresses of a name, kinds alternating, at most four.

        Raises:
            socket.gaierror: there is no such name, or nobody said in time.
        """
        if _is_address(host):
            return [host]
        with self._lock:
            lookup = self._running.get(host)
            if lookup is None:
                lookup = self._running[host] = _Lookup()
                thread = threading.Thread(
                    target=self._look_up, args=(host, lookup), name="hf-names", daemon=True
                )
                thread.start()
        if not lookup.done.wait(seconds):
            raise socket.gaierror(socket.EAI_AGAIN, "the name service does not answer")
        if lookup.error is not None:
            raise socket.gaierror(*lookup.error.args)
        return lookup.addresses

    def _look_up(self, host: str, lookup: _Lookup) -> None:
        try:
            family = connection.allowed_gai_family()
            found = socket.getaddrinfo(host, None, family, socket.SOCK_STREAM)
            lookup.addresses = _alternating([(row[0], str(row[4][0])) for row in found])
        except (OSError, UnicodeError) as error:
            lookup.error = error if isinstance(error, OSError) else socket.gaierror(str(error))
        finally:
            with self._lock:
                del self._running[host]
            lookup.done.set()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _alternating(found: list[tuple[int, str]]) -> list[str]:
    """One address of each kind in turn: where one kind leads nowhere, the other is tried next."""
    kinds: dict[int, list[str]] = {}
    for family, address in found:
        if address not in kinds.setdefault(family, []):
            kinds[family].append(address)
    turns = itertools.zip_longest(*kinds.values())
    return [one for turn in turns for one in turn if one is not None][:_MOST_ADDRESSES]


class _InTime(HTTPConnection):
    """Connects within its time-out, all addresses together."""

    names = Names()

    def _new_conn(self) -> socket.socket:
        whole = self.timeout if isinstance(self.timeout, (int, float)) else _DEFAULT_SECONDS
        deadline = time.monotonic() + whole
        host = self.host.strip("[]").rstrip(".")
        try:
            addresses = self.names.resolve(host, whole)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        sock = self._first_that_answers(addresses, deadline)
        sock.settimeout(self.timeout)
        sys.audit("http.client.connect", self, self.host, self.port)
        return sock

    def _first_that_answers(self, addresses: list[str], deadline: float) -> socket.socket:
        failure: OSError = OSError("there is no address")
        for number, address in enumerate(addresses):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            try:
                return connection.create_connection(
                    (address, self.port),
                    # What the first does not use, the others have.
                    left / (len(addresses) - number),
                    source_address=self.source_address,
                    socket_options=self.socket_options,
                )
            except OSError as error:
                failure = error
        if isinstance(failure, TimeoutError):
            raise ConnectTimeoutError(self, f"Connection to {self.host} timed out.") from failure
        raise NewConnectionError(
            self, f"Failed to establish a new connection: {failure}"
        ) from failure


class _SecureInTime(_InTime, HTTPSConnection):
    """The same with TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _InTime


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureInTime


POOLS: dict[str, Any] = {"http": _Pool, "https": _SecurePool}
"""For `pool_classes_by_scheme` of a pool manager."""
