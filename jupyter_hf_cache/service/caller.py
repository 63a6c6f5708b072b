"""Who asks, and with whose right.

Responsible for: choosing the credential that one request is sent upstream with, from how the
caller came in and the distribution's access mode.
Not responsible for: letting the caller in (`web.entrance`), or what the upstream says
(`upstream.rights`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from jupyter_hf_cache.errors import Refused
from jupyter_hf_cache.protocol.paths import HubRequest, Kind
from jupyter_hf_cache.protocol.xet import asks_for_token
from jupyter_hf_cache.storage.records import ANONYMOUS, Credential, Distribution, Remote
from jupyter_hf_cache.upstream.client import UpstreamClient
from jupyter_hf_cache.upstream.policy import Lifetimes

READS_OF_A_REPO = frozenset(
    {Kind.RESOLVE, Kind.RAW, Kind.INFO, Kind.TREE, Kind.PATHS_INFO, Kind.REFS, Kind.COMMITS}
)
"""The reads that a remote's stored token serves, and that an anonymous caller may make."""

# The end of an upload in parts: the Hub signed the address, and clients send no token there.
_SIGNED = "/api/complete_multipart"

ANONYMOUS_IDENTITY = "anonymous"
"""The identity of who sends no credential (see `SecretBox.identity`)."""


class Asker(Protocol):
    """What the service needs to know of an entrance."""

    @property
    def kind(self) -> str:
        """ "trusted", "own-token" or "anonymous"."""
        ...

    @property
    def via(self) -> str:
        """How the caller came in."""
        ...

    @property
    def bearer(self) -> str | None:
        """The caller's own upstream credential."""
        ...

    @property
    def same_machine(self) -> bool:
        """A direct loopback peer."""
        ...

    @property
    def base(self) -> str:
        """The URL the client used, up to where the base_path begins."""
        ...


@dataclass(frozen=True, slots=True)
class Caller:
    """One request's view of a distribution.

    Args:
        credential: what is sent upstream.
        identity: a keyed hash of it, or "anonymous".
        owner: the user of a single-user server.
        public_only: whatever the credential opens, only what anonymous callers may read is given
            out.
        base: the endpoint as this client knows it, without a trailing slash.
        lifetimes: how long the remote's answers hold.
        offline: the remote is never asked.
        passes: it may get a token for Xet, see `may_pass`.
        background: nobody waits for what is asked.
    """

    distribution: Distribution
    remote: Remote
    client: UpstreamClient
    credential: Credential
    identity: str
    owner: bool
    public_only: bool
    base: str
    lifetimes: Lifetimes
    offline: bool = False
    passes: bool = True
    background: bool = False

    @property
    def scope(self) -> str:
        """What the keys of verdicts and kept answers begin with."""
        return self.remote.scope

    def as_anonymous(self) -> Caller:
        """Return the same caller without any credential."""
        return replace(self, credential=ANONYMOUS, identity=ANONYMOUS_IDENTITY)


def choose_credential(
    asker: Asker, distribution: Distribution, remote: Remote, kind: Kind, *, single_user: bool
) -> Credential:
    """Choose with whose right a request reads.

    A caller's own bearer always wins: a bad one gets the upstream's refusal, never somebody else's
    content. The remote's stored credential serves only reads of a repo, and only the one user of a
    server that has one, or everybody with entrance where the distribution says `shared`.
    """
    if asker.bearer is not None:
        return Credential(asker.bearer, "caller")
    if is_public_only(asker, distribution) or kind not in READS_OF_A_REPO:
        return ANONYMOUS
    theirs = distribution.access == "shared" or is_owner(asker, single_user=single_user)
    if theirs and has_credential(remote):
        return Credential(remote.hf_token, "remote")
    return ANONYMOUS


def is_owner(asker: Asker, *, single_user: bool) -> bool:
    """Return whether a caller is the one user of this server. Who holds a named key is let in by
    that user, and is somebody else."""
    return single_user and asker.kind == "trusted" and asker.via != "key"


def is_public_only(asker: Asker, distribution: Distribution) -> bool:
    """Return whether reads give out only what anybody may read, whatever the caller holds."""
    return distribution.access == "public" or asker.via == "network"


def is_stranger(asker: Asker) -> bool:
    """Return whether a caller came in without any login or token that counts here."""
    return asker.kind == "anonymous" or asker.via == "network"


def may_pass(asker: Asker) -> bool:
    """Return whether a caller may get a token with which the Hub's storage is read past this cache.
    It is asked for with their own right, which for nobody in particular opens public repos."""
    return not is_stranger(asker) or (asker.via != "network" and asker.same_machine)


def has_credential(remote: Remote) -> bool:
    """Return whether a remote holds a token or something that counts as one."""
    return bool(remote.hf_token or remote.username or remote.password or remote.client_cert)


def without_credentials(remote: Remote) -> Remote:
    """Return the remote as callers without its right reach it."""
    return replace(
        remote,
        hf_token=None,
        username=None,
        password=None,
        client_cert=None,
        client_key=None,
    )


def check_allowed(asker: Asker, request: HubRequest, *, read_only: bool) -> None:
    """Refuse what this entrance may not do, before anything is asked.

    Raises:
        Refused: with the reason.
    """
    if is_stranger(asker) and request.kind not in READS_OF_A_REPO:
        asks = request.kind is Kind.LIST or request.path.endswith("/auth-check")
        asks = asks and request.method in ("GET", "HEAD")
        here = (asks or request.path == _SIGNED) and asker.same_machine
        if not (here or (asks_for_token(request) and may_pass(asker))):
            raise Refused(
                "Without signing in, this cache gives out files and pages of public repositories "
                "only.",
                advice="Use the endpoint from `jupyter hf-cache env`, or send your own token.",
                status=401,
            )
    if request.writes and not (asker.kind == "trusted" or asker.same_machine):
        raise Refused("Writing through this cache needs a signed-in caller.")
    if request.writes and read_only:
        raise Refused(
            "This cache is read-only: it does not pass on uploads or other changes.",
            advice="Set HF_ENDPOINT=https://huggingface.co for this command.",
        )


IdentityOf = Callable[[str | None], str]
"""Maps a credential's text to the identity it is known by."""


def identity_of(credential: Credential, remote: Remote, identity: IdentityOf) -> str:
    """Return the identity under which verdicts and metadata of this credential are kept."""
    if credential.source != "remote" or credential.token is not None:
        return identity(credential.token)
    login = [remote.id, remote.username, remote.password, remote.client_cert]
    return identity("\n".join(part or "" for part in login))
