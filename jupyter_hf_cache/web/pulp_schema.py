"""The resources of the REST API.

Responsible for: one declaration per resource, from which both the check of a request body and the
answer are made; which fields are secret and how they are masked.
Not responsible for: storing anything, lists, or HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jupyter_hf_cache.service.mirrors import MOST_MIRRORS
from jupyter_hf_cache.storage.config_rows import SECRET_FIELDS
from jupyter_hf_cache.storage.records import DEFAULT_HUB, Distribution, Remote
from jupyter_hf_cache.web.pulp_errors import field_error, from_validation
from jupyter_hf_cache.web.pulp_fields import (
    MASK,
    BasePath,
    Certificate,
    Count,
    Headers,
    LabelKey,
    Labels,
    LabelValue,
    MirrorUrl,
    Name,
    Number,
    ProxyUrl,
    Reference,
    Seconds,
    Secret,
    Token,
    Url,
)
from jupyter_hf_cache.web.pulp_hrefs import DISTRIBUTIONS, NO_MATCH, REMOTES

Values = dict[str, Any]


class Body(BaseModel):
    """What a client may write.

    Attributes:
        read_only: keys of the answer, which a client may send back and which change nothing.
        reset_by_put: fields that go back to their default when a PUT leaves them out.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    read_only: ClassVar[frozenset[str]] = frozenset()
    reset_by_put: ClassVar[tuple[str, ...]] = ()

    def refuse_combinations(self) -> None:
        """Raise `ApiError` for values that do not go together or are not offered."""


class Mirror(BaseModel):
    """A further address of a remote's content."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    url: MirrorUrl
    send_token: bool = False


class RemoteBody(Body):
    """A remote, as it is written; the fields from `mirrors` on are this package's own."""

    read_only = frozenset(
        {"pulp_href", "prn", "pulp_created", "pulp_last_updated", "hidden_fields"}
    )
    reset_by_put = ("policy", "hf_hub_url")

    name: Name
    url: Url
    policy: Literal["immediate", "on_demand", "streamed"] = "on_demand"
    hf_hub_url: Url = DEFAULT_HUB
    hf_token: Token | None = None
    pulp_labels: Labels = Field(default_factory=dict)
    ca_cert: Certificate | None = None
    client_cert: Certificate | None = None
    client_key: Secret | None = None
    tls_validation: bool = True
    proxy_url: ProxyUrl | None = None
    proxy_username: Secret | None = None
    proxy_password: Secret | None = None
    username: Secret | None = None
    password: Secret | None = None
    max_retries: Number | None = None
    total_timeout: Seconds | None = None
    connect_timeout: Seconds | None = None
    sock_connect_timeout: Seconds | None = None
    sock_read_timeout: Seconds | None = None
    headers: Headers | None = None
    download_concurrency: Count | None = None
    rate_limit: Number | None = None
    mirrors: Annotated[list[Mirror], Field(max_length=MOST_MIRRORS)] | None = None
    offline: bool = False
    revision_ttl: Seconds | None = None
    metadata_ttl: Seconds | None = None
    negative_ttl: Seconds | None = None
    access_ttl: Seconds | None = None
    access_grace: Seconds | None = None

    def refuse_combinations(self) -> None:
        """See `Body`."""
        own = Remote(id="", name="", url=self.url, hf_hub_url=self.hf_hub_url)
        known = {own.origin_id: "is the remote's own address"}
        for mirror in self.mirrors or []:
            place = Remote(id="", name="", url=mirror.url).origin_id
            if place in known:
                raise field_error("mirrors", f"{mirror.url} {known[place]}.")
            known[place] = "is named twice"


class DistributionBody(Body):
    """A distribution, as it is written; `access` is this package's own field."""

    read_only = frozenset(
        {
            "pulp_href",
            "prn",
            "pulp_created",
            "pulp_last_updated",
            "base_url",
            "content_guard_prn",
            "no_content_change_since",
        }
    )
    reset_by_put = ("hidden",)

    name: Name
    base_path: BasePath
    remote: Reference = None
    publication: Reference = None
    repository: Reference = None
    repository_version: Reference = None
    content_guard: Reference = None
    hidden: bool = False
    access: Literal["caller", "shared", "public"] = "caller"
    pulp_labels: Labels = Field(default_factory=dict)

    def refuse_combinations(self) -> None:
        """See `Body`."""
        sources = [
            name
            for name in ("publication", "repository", "repository_version")
            if getattr(self, name) is not None
        ]
        if len(sources) > 1:
            message = f"Only one of {' and '.join(sources)} may be set."
            raise field_error("non_field_errors", message)
        for name in (*sources, "content_guard"):
            if getattr(self, name) is not None:
                raise field_error(name, "This is not offered by this server. Leave it out.")


class SetLabelBody(Body):
    """A label to set."""

    key: LabelKey
    value: LabelValue


class UnsetLabelBody(Body):
    """A label to remove."""

    key: LabelKey


def parse(model: type[Body], body: Mapping[str, Any], present: Values | None = None) -> Values:
    """Check a request body and return the values of the fields that it gives.

    Args:
        present: for a PATCH, the present values of the fields that a new resource needs.

    Raises:
        ApiError: 400, with all that is wrong by field.
    """
    given = {name: value for name, value in body.items() if name not in model.read_only}
    try:
        parsed = model.model_validate({**(present or {}), **given})
    except ValidationError as error:
        raise from_validation(error) from None
    parsed.refuse_combinations()
    return {name: value for name, value in parsed.model_dump().items() if name in given}


def parse_put(model: type[Body], body: Mapping[str, Any]) -> Values:
    """Check the body of a PUT; some fields that it leaves out go back to their defaults."""
    defaults = {name: model.model_fields[name].default for name in model.reset_by_put}
    return {**defaults, **parse(model, body)}


def resolve_secrets(values: Values, former: Remote | None) -> Values:
    """Replace masks by what they stand for, so that an answer can be edited and sent back, and
    blank secrets by None.

    Args:
        former: the remote as it is; None when it is being created.

    Raises:
        ApiError: 400, a mask stands where there was nothing.
    """
    values = {
        name: None if name in SECRET_FIELDS and value == "" else value
        for name, value in values.items()
    }
    if values.get("hf_token") == MASK:
        if former is None:
            raise field_error("hf_token", "This is the mask of a token, not a token.")
        del values["hf_token"]
    if values.get("headers"):
        known = {
            name.lower(): value
            for header in (former.headers if former and former.headers else [])
            for name, value in header.items()
        }
        values["headers"] = [
            {name: _unmasked(name, value, known) for name, value in header.items()}
            for header in values["headers"]
        ]
    return values


def _unmasked(name: str, value: str, known: Mapping[str, str]) -> str:
    if value != MASK:
        return value
    if name.lower() not in known:
        raise field_error(
            "headers", f"The value of {name} is a mask, and there was no such header."
        )
    return known[name.lower()]


def resolve_remote(values: Values) -> Values:
    """Replace the reference to a remote by its id.

    Raises:
        ApiError: 400, it is no reference to a remote.
    """
    if values.get("remote") is None:
        return values
    remote_id = REMOTES.id_of(values["remote"])
    if remote_id is None:
        raise field_error("remote", NO_MATCH)
    return {**values, "remote": remote_id}


def remote_answer(remote: Remote) -> Values:
    """Return a remote as clients see it: without its secrets."""
    fields = {
        name: getattr(remote, name)
        for name in RemoteBody.model_fields
        if name not in SECRET_FIELDS and name != "headers"
    }
    return {
        "pulp_href": REMOTES.href_of(remote.id),
        "prn": REMOTES.prn_of(remote.id),
        "pulp_created": remote.created,
        "pulp_last_updated": remote.updated,
        **fields,
        "hf_token": MASK if remote.hf_token else None,
        "headers": remote.headers and [dict.fromkeys(header, MASK) for header in remote.headers],
        "hidden_fields": [
            {"name": name, "is_set": bool(getattr(remote, name))} for name in SECRET_FIELDS
        ],
    }


def distribution_answer(distribution: Distribution, content_url: Callable[[str], str]) -> Values:
    """Return a distribution as clients see it.

    Args:
        content_url: makes the full URL of a base path.
    """
    fields = {name: getattr(distribution, name) for name in DistributionBody.model_fields}
    return {
        "pulp_href": DISTRIBUTIONS.href_of(distribution.id),
        "prn": DISTRIBUTIONS.prn_of(distribution.id),
        "pulp_created": distribution.created,
        "pulp_last_updated": distribution.updated,
        **fields,
        "base_url": content_url(distribution.base_path),
        "remote": REMOTES.href_of(distribution.remote) if distribution.remote else None,
        "content_guard_prn": None,
        "no_content_change_since": None,
    }
