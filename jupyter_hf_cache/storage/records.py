"""The records that travel between the layers.

Responsible for: frozen data classes and nothing else. Secrets are fields with `repr=False`, so
that no log line or traceback shows them.
Not responsible for: how they are stored (`state`, `config_store`, `blobs`) or validated
(`web.pulp_schema`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal
from urllib.parse import urlsplit

DEFAULT_HUB = "https://huggingface.co"

REPO_TYPES = ("models", "datasets", "spaces")


@dataclass(frozen=True, slots=True)
class RepoRef:
    """One repository of a Hub.

    Args:
        type: "models", "datasets" or "spaces".
        id: "gpt2" or "owner/name".
    """

    type: str
    id: str

    def __str__(self) -> str:
        return f"{self.type}/{self.id}"


@dataclass(frozen=True, slots=True)
class Credential:
    """What is sent upstream as `Authorization` for one request.

    Args:
        token: the bearer token, or None to ask anonymously.
        source: whose it is: the caller's own, the remote's stored one, or nobody's.
    """

    token: str | None = field(default=None, repr=False)
    source: Literal["caller", "remote", "none"] = "none"


ANONYMOUS = Credential()


@dataclass(frozen=True, slots=True)
class Remote:
    """Where content comes from; the fields are those of Pulp's HuggingFaceRemote.

    Times are seconds; `rate_limit` is requests per second; `created` and `updated` are ISO 8601 in
    UTC with microseconds and "Z". None means "not set".

    Those from `mirrors` on are this package's own. A mirror is `{"url": str, "send_token": bool}`;
    they are asked in their order when the one before cannot be. `offline`: never ask upstream. The
    rest are the times of `HfCache` of the same names, for this remote; None: those hold.
    """

    id: str
    name: str
    url: str
    policy: str = "on_demand"
    hf_hub_url: str = DEFAULT_HUB
    hf_token: str | None = field(default=None, repr=False)
    pulp_labels: dict[str, str | None] = field(default_factory=dict)
    ca_cert: str | None = None
    client_cert: str | None = None
    client_key: str | None = field(default=None, repr=False)
    tls_validation: bool = True
    proxy_url: str | None = None
    proxy_username: str | None = field(default=None, repr=False)
    proxy_password: str | None = field(default=None, repr=False)
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    max_retries: int | None = None
    total_timeout: float | None = None
    connect_timeout: float | None = None
    sock_connect_timeout: float | None = None
    sock_read_timeout: float | None = None
    headers: list[dict[str, Any]] | None = field(default=None, repr=False)
    download_concurrency: int | None = None
    rate_limit: int | None = None
    mirrors: list[dict[str, Any]] | None = None
    offline: bool = False
    revision_ttl: float | None = None
    metadata_ttl: float | None = None
    negative_ttl: float | None = None
    access_ttl: float | None = None
    access_grace: float | None = None
    created: str = ""
    updated: str = ""

    @property
    def upstream_url(self) -> str:
        """The effective upstream without a trailing slash.

        `hf_hub_url` wins when it differs from the default, because Pulp's plugin fetches from it;
        else `url`.
        """
        chosen = self.hf_hub_url if self.hf_hub_url.rstrip("/") != DEFAULT_HUB else self.url
        return chosen.rstrip("/")

    @property
    def origin(self) -> str:
        """Scheme, host and port of the upstream, in lower case, with default ports left out."""
        return _origin_of(self.upstream_url)

    @property
    def base_path(self) -> str:
        """The path part of the upstream URL, without a trailing slash; "" for most Hubs."""
        return urlsplit(self.upstream_url).path.rstrip("/")

    @property
    def origin_id(self) -> str:
        """The upstream as a short name that is safe in paths and keys.

        The base path belongs to it: two mirrors below one host are two origins of claims.
        """
        return _short_name(self.upstream_url)

    @property
    def scope(self) -> str:
        """What keys of verdicts and kept answers begin with: they hold for this remote at this
        upstream, and mean nothing once its URL names another one."""
        return f"{self.id}@{self.origin_id}"


# Every request asks for these, of the same few remotes.
@lru_cache(maxsize=256)
def _origin_of(url: str) -> str:
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    host = (parts.hostname or "").lower()
    if ":" in host:
        host = f"[{host}]"
    port = parts.port
    if port is None or (scheme, port) in (("http", 80), ("https", 443)):
        return f"{scheme}://{host}"
    return f"{scheme}://{host}:{port}"


@lru_cache(maxsize=256)
def _short_name(url: str) -> str:
    place = _origin_of(url) + urlsplit(url).path.rstrip("/")
    return hashlib.sha256(place.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Distribution:
    """A `base_path` at which a remote is served; the fields are those of Pulp's distribution.

    Args:
        access: "caller", "shared" or "public": with whose right content is read.
    """

    id: str
    name: str
    base_path: str
    remote: str | None = None
    publication: str | None = None
    repository: str | None = None
    repository_version: str | None = None
    content_guard: str | None = None
    hidden: bool = False
    access: str = "caller"
    pulp_labels: dict[str, str | None] = field(default_factory=dict)
    created: str = ""
    updated: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """An origin's statement that repo@commit:path has this digest and size.

    Args:
        etag: the unquoted ETag as the Hub gave it: 64 or 40 hex digits.
        size: bytes, None where the origin did not say.
        absent: the origin said that the commit has no such file.
        content_type: as the Hub said it, or None.
        xet_hash: of a file too large for plain HTTP only (`protocol.xet`), where it can be used.
    """

    commit: str
    etag: str = ""
    size: int | None = None
    absent: bool = False
    content_type: str | None = None
    xet_hash: str | None = None


@dataclass(frozen=True, slots=True)
class Revision:
    """What a branch, tag or PR ref pointed at, for one identity.

    Args:
        commit: 40 hex digits.
        checked: Unix time in seconds when the upstream said so.
    """

    commit: str
    checked: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """The upstream's last word on whether an identity may read a repo.

    Args:
        content: it may read files; False means only the repo's page (gated repos).
        public: the upstream said so to an anonymous request, or said "neither private nor gated".
        checked: Unix time in seconds.
        said_public: Unix time when it said so; None: when it was checked.
    """

    content: bool
    public: bool
    checked: float
    said_public: float | None = None
