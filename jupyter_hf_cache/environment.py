"""`HF_ENDPOINT` in every new kernel and terminal.

Kernels and terminals inherit the server process's environment, whatever language they speak, so
this is where the endpoint is put. Processes that run already keep what they had.

Responsible for: which variables are set, telling our own values from the user's, and putting
everything back.
Not responsible for: whether the endpoint works (`app` tests it first), or a running kernel
(`kernel_switch`).
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import TypedDict
from urllib.parse import urlsplit

ENDPOINT = "HF_ENDPOINT"
OWN_URL = "JUPYTER_HF_CACHE_URL"
"""Holds what we put into `HF_ENDPOINT`: a Jupyter that is started from our terminal inherits both,
and must not take our address for its upstream."""
OWN_UPSTREAM = "JUPYTER_HF_CACHE_UPSTREAM"
"""Holds the `HF_ENDPOINT` that was there before ours, for the same Jupyter."""
RUNTIME_FILE = "JUPYTER_HF_CACHE_FILE"

_NO_PROXY = ("NO_PROXY", "no_proxy")


class InjectionState(TypedDict):
    """Whether new kernels get the endpoint, and if not, why."""

    on: bool
    reason: str | None


def inherited_upstream(environ: Mapping[str, str]) -> str | None:
    """The Hub that the user chose by `HF_ENDPOINT` before Jupyter started, seen through our own
    values.

    Returns:
        A URL without a trailing slash, or None: not set, or no http(s) URL that can be used.
    """
    value = environ.get(ENDPOINT, "").strip().rstrip("/")
    if value and value == environ.get(OWN_URL, "").rstrip("/"):
        value = environ.get(OWN_UPSTREAM, "").strip().rstrip("/")
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.username
    except ValueError:
        usable = False
    return value if usable else None


def with_host(no_proxy: str, host: str) -> str:
    """A `NO_PROXY` list that also holds `host`."""
    listed = [entry.strip() for entry in no_proxy.split(",") if entry.strip()]
    return ",".join(listed if host in listed or "*" in listed else [*listed, host])


class Injection:
    """The variables that new kernels and terminals get. Used on the event loop only.

    Args:
        environ: the server's environment.
        names: the variables that get the endpoint; none switches injection off until
            `switch(True)`.
    """

    def __init__(
        self, environ: MutableMapping[str, str], names: Sequence[str] = (ENDPOINT,)
    ) -> None:
        self._environ = environ
        self._names = tuple(names) or (ENDPOINT,)
        self._wanted = bool(names)
        self._reason: str | None = (
            "The cache is still starting." if names else "Switched off by c.HfCache.inject_env."
        )
        self._endpoint: str | None = None
        self._user_endpoint = inherited_upstream(environ)
        self._before: dict[str, str | None] = {}
        self._ours: dict[str, str] = {}

    @property
    def endpoint(self) -> str | None:
        """The tested endpoint, with its capability; None while there is none."""
        return self._endpoint

    def announce(self, runtime_file: Path) -> None:
        """Tell new kernels where the runtime file is. Independent of the endpoint."""
        self._set(RUNTIME_FILE, str(runtime_file))

    def offer(self, endpoint: str) -> None:
        """The endpoint works; new kernels get it unless injection is switched off.

        Called again with a fresh capability from time to time.
        """
        self._endpoint = endpoint
        if self._wanted:
            self._apply(endpoint)

    def refuse(self, reason: str) -> None:
        """There is no endpoint to give."""
        self._reason = reason

    def switch(self, on: bool) -> InjectionState:
        """Turn it on or off for kernels that start from now on; off brings the old values back."""
        self._wanted = on
        if not on:
            self._withdraw(keep=RUNTIME_FILE)
            self._reason = "Switched off."
        elif self._endpoint is not None:
            self._apply(self._endpoint)
        return self.state()

    def state(self) -> InjectionState:
        """Whether new kernels get the endpoint, and if not, why."""
        on = self._wanted and self._endpoint is not None
        return {"on": on, "reason": None if on else self._reason}

    def restore(self) -> None:
        """Put the environment back, except for what somebody else has changed since."""
        self._withdraw()
        self._endpoint = None
        self._reason = "The cache has stopped."

    def _apply(self, endpoint: str) -> None:
        host = urlsplit(endpoint).hostname or ""
        # Each spelling starts from what is there under either: a library that finds one does not
        # look for the other.
        known = [self._environ.get(name, "") for name in _NO_PROXY]
        for name, value in zip(_NO_PROXY, known, strict=True):
            self._set(name, with_host(value or next(filter(None, known), ""), host))
        for name in (*self._names, OWN_URL):
            self._set(name, endpoint)
        if self._user_endpoint:
            self._set(OWN_UPSTREAM, self._user_endpoint)

    def _set(self, name: str, value: str) -> None:
        if self._environ.get(name) != self._ours.get(name) or name not in self._ours:
            self._before[name] = self._environ.get(name)
        self._environ[name] = self._ours[name] = value

    def _withdraw(self, keep: str = "") -> None:
        for name in [name for name in self._ours if name != keep]:
            ours, before = self._ours.pop(name), self._before.pop(name)
            if self._environ.get(name) != ours:
                continue
            if before is None:
                del self._environ[name]
            else:
                self._environ[name] = before
