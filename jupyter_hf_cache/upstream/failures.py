"""Why an upstream could not be asked, in words.

Responsible for: one sentence and one advice for each way in which a connection fails, made from the
kind of exception only. Texts of `requests` and `urllib3` are never passed on: they quote URLs, and
with them signatures and passwords.
Not responsible for: retrying (`client`), though it says what is worth another try.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

import requests
import urllib3.exceptions

_TUNNEL_STATUS = re.compile(r"Tunnel connection failed: (\d{3})")
_CHECK_NETWORK = "Check the remote's URL and this server's network."
_CHECK_PROXY = "Check proxy_url of the remote, or HTTPS_PROXY and NO_PROXY of the server."
_SET_CA = "Set ca_cert of the remote to the issuer's certificate."

# OpenSSL's verification codes (x509_vfy.h): what is wrong, and what to do.
_CERTIFICATE_PROBLEMS: dict[int, tuple[str, str]] = {
    9: ("it is not valid yet", "Check the clock of this machine."),
    10: ("it has expired", "Its owner must renew it."),
    18: ("it is self-signed, so its issuer is unknown here", _SET_CA),
    19: ("its issuer is a self-signed authority that is unknown here", _SET_CA),
    20: ("its issuer is unknown here", _SET_CA),
    21: ("its issuer's certificate is missing", _SET_CA),
    62: ("it was issued for another host name", "Check the host in the remote's URL."),
    64: ("it was issued for another address", "Check the host in the remote's URL."),
}


@dataclass(frozen=True, slots=True)
class Failure:
    """A connection that failed before there was an answer.

    Args:
        message: one sentence, without secrets.
        advice: what to do about it.
        transient: another try may work.
        sent: the request may have reached the upstream.
    """

    message: str
    advice: str = _CHECK_NETWORK
    transient: bool = True
    sent: bool = False


def explain(error: BaseException, *, host: str, proxy: str | None, waited: float) -> Failure:
    """Say what an exception of `requests` means.

    Args:
        host: host and port that were asked for.
        proxy: host and port of the proxy between, or None.
        waited: seconds since the try began.
    """
    causes = list(_causes(error))
    if proxy is not None and _has(causes, urllib3.exceptions.ProxyError):
        return _explain_proxy(causes, host, proxy)
    certificate = _first(causes, ssl.SSLCertVerificationError)
    if certificate is not None:
        return _explain_certificate(certificate, host)
    if _has(causes, ssl.SSLError) or _has(causes, requests.exceptions.SSLError):
        return Failure(
            f"No TLS connection to {host}: it broke off the handshake, or speaks no TLS.",
            advice="Check scheme and port of the remote's URL.",
            transient=False,
        )
    if _has(causes, requests.exceptions.ReadTimeout):
        return Failure(f"{host} did not answer within {waited:.0f} s.", sent=True)
    if _has(causes, requests.exceptions.ConnectTimeout):
        return Failure(f"No connection to {host} within {waited:.0f} s: it timed out.")
    if _has(causes, socket.gaierror) or _has(causes, urllib3.exceptions.NameResolutionError):
        return Failure(f"The name of {host} cannot be resolved (DNS).")
    if isinstance(error, requests.exceptions.InvalidSchema):
        return Failure(
            "The proxy is a SOCKS proxy, for which a package is missing.",
            advice="Install PySocks beside the server.",
            transient=False,
        )
    return _explain_socket(causes, host)


def explain_proxy_status(proxy: str, status: str = "407") -> Failure:
    """A proxy answered in the upstream's place that it wants a login."""
    return Failure(
        f"The proxy {proxy} wants a user name and password, or refused them ({status}).",
        advice="Set proxy_username and proxy_password of the remote.",
        transient=False,
    )


def _explain_proxy(causes: list[BaseException], host: str, proxy: str) -> Failure:
    for cause in causes:
        match = _TUNNEL_STATUS.search(str(cause))
        if match is None:
            continue
        if match[1] in ("401", "407"):
            # Some say the one where they mean the other.
            return explain_proxy_status(proxy, match[1])
        return Failure(
            f"The proxy {proxy} refused the way to {host} ({match[1]}).",
            advice=_CHECK_PROXY,
            transient=match[1] in ("502", "503", "504"),
        )
    return Failure(f"The proxy {proxy} cannot be reached.", advice=_CHECK_PROXY)


def _explain_certificate(error: ssl.SSLCertVerificationError, host: str) -> Failure:
    problem, advice = _CERTIFICATE_PROBLEMS.get(
        error.verify_code, (f"verification failed with OpenSSL code {error.verify_code}", _SET_CA)
    )
    return Failure(
        f"The TLS certificate of {host} is not trusted: {problem}.", advice=advice, transient=False
    )


def _explain_socket(causes: list[BaseException], host: str) -> Failure:
    if _has(causes, ConnectionRefusedError):
        return Failure(f"{host} refused the connection.")
    numbers = {cause.errno for cause in causes if isinstance(cause, OSError)}
    if numbers & {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN}:
        return Failure(f"There is no network route to {host}.")
    if _has(causes, urllib3.exceptions.NewConnectionError):
        return Failure(f"No connection to {host}.")
    if _has(causes, ConnectionError) or _has(causes, urllib3.exceptions.ProtocolError):
        return Failure(f"{host} closed the connection without a valid answer.", sent=True)
    return Failure(f"The request to {host} failed ({type(causes[0]).__name__}).", sent=True)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception and everything it wraps; libraries nest them in args, `reason` and causes."""
    pending: list[object] = [error]
    seen: set[int] = set()
    while pending and len(seen) < 64:
        current = pending.pop(0)
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        pending.extend(current.args)
        pending.append(getattr(current, "reason", None))
        pending.append(current.__cause__ or current.__context__)


def _has(causes: list[BaseException], kind: type[BaseException]) -> bool:
    return any(isinstance(cause, kind) for cause in causes)


def _first(
    causes: list[BaseException], kind: type[ssl.SSLCertVerificationError]
) -> ssl.SSLCertVerificationError | None:
    return next((cause for cause in causes if isinstance(cause, kind)), None)
