"""Requests to one remote.

Responsible for: which credential goes to whom, following redirects, retries and time-outs, proxy
and certificates, and failing with words instead of stack traces.
Not responsible for: whether a request may be made (`rights`), what an answer means
(`protocol.headers`), or the server's event loop: every call blocks and belongs in a thread.

No `requests.Session` is used: a session reads `~/.netrc`, keeps cookies, and reads the body of a
redirect to the end however long it is. Its connection pools are what is wanted, and they live in
the transport adapter.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, cast
from urllib.parse import urlsplit

import requests
import urllib3.exceptions
from requests.structures import CaseInsensitiveDict

from jupyter_hf_cache.errors import BadRequest, UpstreamError, UpstreamUnreachable
from jupyter_hf_cache.storage.records import Credential, Remote
from jupyter_hf_cache.upstream.allowance import Allowances, Asking
from jupyter_hf_cache.upstream.call import IDEMPOTENT, LEAST_TIMEOUT, Body, Call
from jupyter_hf_cache.upstream.failures import Failure, explain, explain_proxy_status
from jupyter_hf_cache.upstream.links import Links
from jupyter_hf_cache.upstream.proxies import proxy_rules
from jupyter_hf_cache.upstream.rate_limit import RateLimit
from jupyter_hf_cache.upstream.response import Hop, TooLarge, UpstreamResponse
from jupyter_hf_cache.upstream.slots import Slots
from jupyter_hf_cache.upstream.targets import (
    Target,
    absolute_target,
    own_target,
    redirect_target,
)
from jupyter_hf_cache.upstream.tls import create_context
from jupyter_hf_cache.upstream.transport import Adapter, Upload
from jupyter_hf_cache.upstream.watch import Unwatched, Watch

__all__ = ["Hop", "TooLarge", "UpstreamClient", "UpstreamResponse"]

Follow = Literal["none", "same-origin", "all"]

MAX_REDIRECTS = 8
DEFAULT_RETRIES = 3
CONNECT_TIMEOUT = 3.0
READ_TIMEOUT = 30.0
RETRY_BUDGET = 7.5
"""Seconds after which no new try begins: huggingface_hub waits 10 s for the head of an answer."""

_BACKOFF = 0.2
_LEAST_BUDGET = 2.5
# Seconds of silence after which a mirror is asked for a list.
_BESIDE_MIRRORS = 10.0
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_TOKEN = re.compile(r"[\x21-\x7e]+")
# Set by this module or by the connection itself, never by a caller or a remote's `headers`.
_RESERVED = frozenset(
    {
        "accept-encoding",
        "authorization",
        "connection",
        "cookie",
        "host",
        "proxy-authorization",
        "te",
        "transfer-encoding",
        "upgrade",
    }
)


class UpstreamClient:
    """Talks to one remote. Thread-safe; make a new one when the remote changes.

    Args:
        remote: the remote; its secrets go to its own origin only.
        user_agent: for requests whose headers name none.
        environ: where proxy and CA variables are read, once; default is the process's environment.
        allowances: what upstreams allow to whom, shared by all clients.
        watch: says whether the upstream may be asked, and hears when it cannot be reached.
        believed: its bytes may be given out before their digest is known; a mirror's may not.
        beside: another client of the same remote, which shares its limits.

    Attributes:
        downloads: held during a download, so that no more run than the remote's
            `download_concurrency`; whoever downloads takes it.
        links: signed URLs that the remote handed out lately.
    """

    def __init__(
        self,
        remote: Remote,
        *,
        user_agent: str,
        environ: Mapping[str, str] | None = None,
        allowances: Allowances | None = None,
        watch: Watch | None = None,
        believed: bool = True,
        beside: UpstreamClient | None = None,
    ) -> None:
        self.remote = remote
        self.watch: Watch = watch or Unwatched()
        self._allowances = allowances or Allowances()
        self.believed = believed
        self._user_agent = user_agent
        self._environ = dict(os.environ if environ is None else environ)
        self._proxies = proxy_rules(remote, self._environ)
        self._adapters: dict[tuple[bool, bool], Adapter] = {}
        self._lock = threading.Lock()
        self._pace: RateLimit = beside._pace if beside else RateLimit(remote.rate_limit)
        self.downloads: Slots = (
            beside.downloads if beside else Slots(remote.download_concurrency or None)
        )
        self.links = Links()
        # Who waits for the head of an answer waits for all that can be asked, one after the other.
        self._budget = max(RETRY_BUDGET / (1 + len(remote.mirrors or [])), _LEAST_BUDGET)

    def __repr__(self) -> str:
        return f"<UpstreamClient {self.remote.origin}>"

    def request(
        self,
        method: str,
        path_or_url: str,
        *,
        query: str = "",
        credential: Credential,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        stream: bool = True,
        follow: Follow = "none",
        read_timeout: float | None = None,
        connect_timeout: float | None = None,
        background: bool | Callable[[], bool] = False,
        brief: bool = False,
    ) -> UpstreamResponse:
        """Send one request and return the head of the answer, from which the body is read.

        The bearer goes to the remote's own origin only, and no more once a redirect has left it.
        The remote's user name and password, and its client certificate, are the remote's
        credential: they are used when `credential.source` is "remote", the password only without a
        token.

        GET and HEAD are repeated after a broken connection and after 502, 503 and 504; other
        methods only where no connection came about.

        Args:
            path_or_url: a canonical path below the remote's URL ("/..."), or an absolute URL.
            query: raw, without "?".
            headers: extra request headers; `Authorization`, `Cookie` and hop-by-hop ones are
            ignored.
            body: bytes, or an iterable that is sent as it yields (chunked unless `headers` hold a
                `Content-Length`); a request with an iterable is never repeated or redirected.
            stream: False reads the whole body at once, which frees the connection.
            follow: which redirects are followed; one that is not is the answer.
            read_timeout: seconds between two pieces, unless the remote has its own.
            connect_timeout: seconds until the connection stands, in place of the remote's.
            background: nobody waits for it: it gives way to requests that somebody waits for, and
                waits while little is left of what the upstream allows. A callable is asked again
                while it waits.
            brief: it is given up soon, for there is another way: one try, and silence within so
                short a time-out says nothing of the upstream.

        Raises:
            UpstreamFailing: 429, the upstream allows no more for now; it was not asked.
            UpstreamUnreachable: no answer; says why, without secrets.
            Offline: the upstream is not to be asked.
            UpstreamError: redirects in a circle, or to something that is no web address.
            BadRequest: the token cannot be a token.
        """
        self.watch.check()
        total = self.remote.total_timeout
        call = Call(
            method=method.upper(),
            headers=dict(headers or {}),
            body=body,
            credential=credential,
            connect_timeout=self._connect_timeout(connect_timeout),
            read_timeout=self._read_timeout(method, read_timeout),
            deadline=time.monotonic() + total if total else None,
            background=background if callable(background) else lambda: bool(background),
            brief=brief,
        )
        if path_or_url.startswith("/"):
            target = own_target(self.remote, path_or_url, query)
        else:
            target = absolute_target(self.remote, path_or_url, query)
        response = self._walk(call, target, follow)
        if not stream:
            response.preload()
        return response

    # 0 means "no limit" in Pulp, which no request of ours has.

    def _connect_timeout(self, asked: float | None) -> float:
        limits = (self.remote.sock_connect_timeout, self.remote.connect_timeout)
        return asked or min(filter(None, limits), default=min(CONNECT_TIMEOUT, self._budget))

    def _read_timeout(self, method: str, asked: float | None) -> float:
        if self.remote.sock_read_timeout:
            return self.remote.sock_read_timeout
        seconds = asked or READ_TIMEOUT
        if not self.remote.mirrors or seconds > READ_TIMEOUT:
            return seconds
        return min(seconds, self._budget if method.upper() == "HEAD" else _BESIDE_MIRRORS)

    def close(self) -> None:
        """Close idle connections; a request that is still running ends as it would have."""
        with self._lock:
            adapters, self._adapters = list(self._adapters.values()), {}
        for adapter in adapters:
            adapter.close()

    def _walk(self, call: Call, target: Target, follow: Follow) -> UpstreamResponse:
        """Send, and follow redirects as far as `follow` allows."""
        history: tuple[Hop, ...] = ()
        trusted = target.own
        while True:
            answer = self._send_until_answered(call, target, trusted)
            response = UpstreamResponse(answer, history=history, deadline=call.deadline)
            location = response.headers.get("Location")
            if follow == "none" or location is None or not call.may_follow(response.status):
                return response
            try:
                target = redirect_target(self.remote, target, location)
            except UpstreamError:
                response.close()
                raise
            if follow == "same-origin" and not target.own:
                return response
            response.discard()
            history = (*history, response.as_hop())
            if len(history) > MAX_REDIRECTS:
                raise UpstreamError(f"The upstream redirects more than {MAX_REDIRECTS} times.")
            # What another host redirects back to us is not asked with our credential.
            trusted = trusted and target.own

    def _send_until_answered(self, call: Call, target: Target, trusted: bool) -> requests.Response:
        """Send, and repeat what is worth it within the budget of tries and time."""
        retries = self.remote.max_retries
        retries = DEFAULT_RETRIES if retries is None else max(0, retries)
        if call.brief or (target.own and self.watch.doubted()):
            retries = 0
        started = time.monotonic()
        for attempt in range(retries + 1):
            left = self._budget - (time.monotonic() - started)
            result = self._send(call, target, trusted, None if attempt == 0 else left)
            pause = _BACKOFF * 2**attempt
            left = self._budget - (time.monotonic() - started) - pause
            if attempt == retries or left < LEAST_TIMEOUT or not call.may_repeat(result):
                break
            if isinstance(result, requests.Response):
                result.close()
            time.sleep(pause)
        if isinstance(result, Failure):
            error = UpstreamUnreachable(result.message, advice=result.advice)
            if target.own and not (call.brief and result.sent):
                self.watch.unreachable(error, time.monotonic() - started)
            raise error
        return result

    def _send(
        self, call: Call, target: Target, trusted: bool, left: float | None
    ) -> requests.Response | Failure:
        """One try.

        What comes back instead of an answer is a `Failure`, without the exception: its text and its
        request hold URLs and tokens.
        """
        proxy = self._proxies.choose(target.origin)
        proxy_host = urlsplit(proxy).netloc.rpartition("@")[2] if proxy else None
        adapter = self._adapter(target, trusted and call.credential.source == "remote")
        upload = Upload(call.body) if call.streams else None
        request = requests.PreparedRequest()
        request.method, request.url = call.method, target.url
        request.body = cast("Any", upload) if upload else call.content
        request.headers = self._headers(call, trusted)
        with self._allowed(call, target, request) as asking:
            began = time.monotonic()
            try:
                answer = adapter.send(
                    request,
                    stream=True,
                    timeout=call.timeouts(left),
                    proxies={urlsplit(target.url).scheme: proxy} if proxy else {},
                )
            except (
                requests.RequestException,
                urllib3.exceptions.HTTPError,
                OSError,
                ValueError,
            ) as error:
                failure = explain(
                    error, host=target.host, proxy=proxy_host, waited=time.monotonic() - began
                )
            else:
                asking.answered(answer.status_code, answer.headers)
                if proxy_host is None or answer.status_code != 407:
                    return answer
                answer.close()
                failure = explain_proxy_status(proxy_host)
        if upload is not None and upload.error is not None:
            raise upload.error
        return failure

    @contextlib.contextmanager
    def _allowed(
        self, call: Call, target: Target, request: requests.PreparedRequest
    ) -> Iterator[Asking]:
        """Wait until a request may be sent, and learn from its answer how many more may be.

        Only the remote itself limits them, not where it keeps its files.
        """
        if not target.own:
            yield Asking()
            return
        authorization, path = request.headers.get("Authorization"), urlsplit(target.url).path
        with self._allowances.asking(
            target.origin, authorization, path, background=call.background
        ) as asking:
            self._pace.wait(background=call.background)
            yield asking

    def _headers(self, call: Call, trusted: bool) -> CaseInsensitiveDict[str]:
        headers = CaseInsensitiveDict({"User-Agent": self._user_agent, "Accept": "*/*"})
        if trusted:
            for entry in self.remote.headers or []:
                _add_headers(headers, {str(name): str(value) for name, value in entry.items()})
        _add_headers(headers, call.headers)
        headers["Accept-Encoding"] = "identity"
        if not call.streams:
            headers.pop("Content-Length", None)
            if call.content or call.method not in (*IDEMPOTENT, "OPTIONS", "DELETE"):
                headers["Content-Length"] = str(len(call.content or b""))
        elif "Content-Length" not in headers:
            headers["Transfer-Encoding"] = "chunked"
        authorization = self._authorization(call.credential) if trusted else None
        if authorization is not None:
            headers["Authorization"] = authorization
        return headers

    def _authorization(self, credential: Credential) -> str | None:
        if credential.token is not None:
            if not _TOKEN.fullmatch(credential.token):
                raise BadRequest(
                    "The Hugging Face token holds characters that no token has.",
                    advice="Copy it again, without spaces or line ends.",
                )
            return f"Bearer {credential.token}"
        if credential.source == "remote" and self.remote.username:
            login = f"{self.remote.username}:{self.remote.password or ''}".encode()
            return "Basic " + base64.b64encode(login).decode("ascii")
        return None

    def _adapter(self, target: Target, as_remote: bool) -> Adapter:
        """The connection pools for a kind of target.

        Connections that showed a certificate are kept apart from those that did not.
        """
        # What certifies a mirror may be another authority than the remote's own.
        own = target.own and self.believed
        key = (own, as_remote and target.own and bool(self.remote.client_cert))
        with self._lock:
            adapter = self._adapters.get(key)
            if adapter is None:
                own, with_client_cert = key
                context = create_context(
                    self.remote, self._environ, own=own, with_client_cert=with_client_cert
                )
                adapter = self._adapters[key] = Adapter(context)
        return adapter


def _add_headers(headers: CaseInsensitiveDict[str], extra: Mapping[str, str]) -> None:
    """Add what may be added; a value that cannot stand in a header is left out, never quoted."""
    for name, value in extra.items():
        if (
            name.lower() not in _RESERVED
            and _HEADER_NAME.fullmatch(name)
            and _HEADER_VALUE.fullmatch(value)
        ):
            headers[name] = value
