"""Files that go past the cache: too large for plain HTTP, so clients load them by Xet.

Responsible for: deciding whether a caller is shown the way to Xet, refusing in words where a client
would end in a misleading error, and handing out the token that Xet wants.
Not responsible for: which files need it (`protocol.xet`), or bytes: those of a plain GET come the
usual way.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping

from jupyter_hf_cache.answers import Answer
from jupyter_hf_cache.errors import Refused, UpstreamUnreachable
from jupyter_hf_cache.protocol.paths import HubRequest
from jupyter_hf_cache.protocol.rewrite import strip_xet
from jupyter_hf_cache.protocol.xet import advertisement, is_too_large
from jupyter_hf_cache.service.caller import Caller
from jupyter_hf_cache.service.forwarding import forward
from jupyter_hf_cache.service.usage import Usage
from jupyter_hf_cache.storage.records import Claim, RepoRef

logger = logging.getLogger(__name__)

_PYTHON_CLIENT = "hf_hub/"
_SWITCHED_OFF = "this cache sends nobody past itself (pass_through_large_files is off)"
_STRANGERS = "this cache shows the way past itself to its own machine and to who signed in only"


class Passing:
    """Thread-safe.

    Args:
        allowed: the option `pass_through_large_files`.
    """

    def __init__(self, *, allowed: bool, usage: Usage) -> None:
        self._allowed = allowed
        self._usage = usage

    def shows(self, caller: Caller) -> bool:
        """Return whether this caller is told of Xet: only who may also get its token."""
        return self._allowed and caller.passes

    def listing(self, text: str, caller: Caller) -> str:
        """Return kept JSON as this caller may see it."""
        if '"xetHash"' not in text or self.shows(caller):
            return text
        return json.dumps(strip_xet(json.loads(text)), ensure_ascii=False, separators=(",", ":"))

    def headers(
        self, request: HubRequest, caller: Caller, claim: Claim, headers: Mapping[str, str]
    ) -> dict[str, str]:
        """Return the headers that send a client past the cache; none for most files.

        Raises:
            Refused: it is no use to a huggingface_hub that the file is there, which would blame a
                missing hf_xet. Other clients load it over plain HTTP.
        """
        if request.repo is None or claim.xet_hash is None or not is_too_large(claim.size):
            return {}
        if self.shows(caller):
            if request.method == "HEAD":
                logger.info("%s: passed through, not cached", _name(request, claim))
            return advertisement(claim.xet_hash, request.repo, claim.commit, caller.base)
        if request.method == "HEAD" and _PYTHON_CLIENT in headers.get("User-Agent", ""):
            raise Refused(
                f"{_name(request, claim)} can be loaded only by Xet, and {self._reason()}.",
                advice=self._advice(caller),
            )
        return {}

    def token(
        self,
        request: HubRequest,
        repo: RepoRef,
        caller: Caller,
        headers: Mapping[str, str],
        check_right: Callable[[Caller, RepoRef], None],
    ) -> Answer:
        """Answer the question for a Xet token with the upstream's own, asked for with the caller's
        own right.

        Raises:
            Refused: the option is off.
            HfCacheError: the upstream's refusal, or why it cannot be asked.
        """
        if not self._allowed:
            raise Refused(
                f"A Xet token is not given out: {_SWITCHED_OFF}.", advice=self._advice(caller)
            )
        if caller.offline:
            raise UpstreamUnreachable("This cache is offline.")
        check_right(caller, repo)
        answer = forward(request, caller, headers, None)
        if answer.status == 200:
            logger.info("%s: a Xet token is given out; what it loads is not cached", repo)
            self._usage.add(passed_through=1)
        return answer

    def _reason(self) -> str:
        return _STRANGERS if self._allowed else _SWITCHED_OFF

    def _advice(self, caller: Caller) -> str:
        if self._allowed:
            return "Use the endpoint from `jupyter hf-cache env`, or send your own token."
        return f"Set HF_ENDPOINT={caller.remote.upstream_url} for this download."


def _name(request: HubRequest, claim: Claim) -> str:
    size = f"{(claim.size or 0) / 10**9:,.1f} GB"
    return f"{request.repo}@{claim.commit[:7]}:{request.file} ({size})"
