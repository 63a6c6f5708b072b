"""A circuit breaker for each upstream.

Responsible for: not asking an upstream again that could not answer a moment ago, so that replaying
what is kept costs no time-out per file, and a Hub that limits or fails is spared; and not asking
one at all that is set offline.
Not responsible for: what is answered instead (`service.files`, `service.metadata`).

An upstream that cannot be reached, or in whose place something answers that is no Hub, rests at
once, the longer the longer it took to find out. One that answers 5xx may do so for a single file,
so it rests after a few in a row; one that limits a caller (429) does not, see `upstream.allowance`.
After the rest one question goes through, with one try; the others wait briefly for what it
finds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf

from jupyter_hf_cache.errors import (
    HfCacheError,
    NotAHub,
    Offline,
    UpstreamError,
    UpstreamFailing,
    UpstreamUnreachable,
)
from jupyter_hf_cache.service.mirrors import remote_id_of

_SHORTEST_REST = 2.0
_LONGEST_REST = 30.0
_REST_PER_SECOND_WAITED = 4.0
_FAILURES_IN_A_ROW = 3
_REST_AFTER_FAILURES = 5.0
_WAIT_FOR_PROBE = 1.0
# A portal answers everything with its page. One odd page among good answers is something else, and
# costs no time that others had to be spared.
_SURELY_A_HUB = 5.0


@dataclass(slots=True)
class _State:
    """One upstream. Guarded by the breaker's lock.

    Attributes:
        probed: since when somebody finds out whether it is back; None: nobody.
        answered: when it last did as a Hub does.
    """

    reached: bool = False
    answered: float = -inf
    failures: int = 0
    error: UpstreamError | None = None
    until: float = 0.0
    probed: float | None = None


class Breaker:
    """Remembers, per remote, that it could not answer. Thread-safe.

    Args:
        clock: monotonic seconds.
        offline: says of a remote why it is not to be asked; "" if it may be.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        offline: Callable[[str], str] = lambda remote_id: "",
    ) -> None:
        self._clock = clock
        self._offline = offline
        self._changed = threading.Condition()
        self._states: dict[str, _State] = {}

    @contextmanager
    def asking(self, remote_id: str) -> Iterator[None]:
        """Guard one question to a remote.

        Raises:
            UpstreamError: at once while it rests, with the reason of the last failure.
        """
        probing = self._enter(remote_id)
        started = self._clock()
        try:
            yield
        except Offline:
            raise
        except UpstreamUnreachable as error:
            self._rest(remote_id, error, _rest_after(self._clock() - started))
            raise
        except UpstreamFailing as error:
            # What one caller has used up is no reason to refuse another: `upstream.allowance`.
            if error.status != 429:
                self._failed(remote_id, error)
            raise
        except HfCacheError:
            self._answered(remote_id)
            raise
        else:
            self._answered(remote_id)
        finally:
            if probing:
                self._end_probe(remote_id)

    @contextmanager
    def reaching(self, remote_id: str) -> Iterator[None]:
        """Guard a request whose answer is not ours to judge: it only has to arrive.

        It waits for nobody, and nobody waits for it: it may be an upload of hours. A web page where
        none is due ends it alone: whoever reads a repo finds out by themselves whether a portal
        stands between.

        Raises:
            UpstreamUnreachable: at once while the upstream cannot be reached.
        """
        with self._changed:
            state = self._states.get(remote_id, _State())
            if isinstance(state.error, UpstreamUnreachable) and self._clock() < state.until:
                raise _again(state.error)
        yield
        with self._changed:
            if isinstance(state.error, UpstreamUnreachable):
                self._answered(remote_id)

    def check(self, remote_id: str) -> None:
        """Guard a question that others ask.

        Raises:
            UpstreamError: the upstream rests.
        """
        if not self._states:
            return
        with self._changed:
            state = self._states.get(remote_id)
            if state is not None and state.error is not None and self._clock() < state.until:
                raise _again(state.error)

    def state(self, remote_id: str) -> tuple[str, str]:
        """Return ("reachable" | "unreachable" | "offline" | "unknown", reason)."""
        if reason := self._offline(remote_id):
            return "offline", reason
        with self._changed:
            state = self._states.get(remote_id, _State())
            if state.error is not None:
                return "unreachable", state.error.message
            return ("reachable" if state.reached else "unknown"), ""

    def forget(self, remote_id: str) -> None:
        """Ask again at once, its mirrors too: the remote was changed."""
        with self._changed:
            for known in [*self._states]:
                if remote_id_of(known) == remote_id:
                    del self._states[known]
            self._changed.notify_all()

    def watch(self, remote_id: str) -> RemoteWatch:
        """Return what the clients of a remote report to."""
        return RemoteWatch(self, remote_id)

    def check_online(self, remote_id: str) -> None:
        """See `upstream.watch.Watch.check`."""
        if reason := self._offline(remote_id):
            raise Offline(reason)

    def doubts(self, remote_id: str) -> bool:
        """See `upstream.watch.Watch.doubted`."""
        state = self._states.get(remote_id)
        return state is not None and isinstance(state.error, UpstreamUnreachable)

    def note_unreachable(self, remote_id: str, error: UpstreamUnreachable, waited: float) -> None:
        """See `upstream.watch.Watch.unreachable`."""
        self._rest(remote_id, error, _rest_after(waited))

    def _enter(self, remote_id: str) -> bool:
        """Let a question through or not; True if it is the one that finds out whether the upstream
        is back."""
        with self._changed:
            state = self._states.setdefault(remote_id, _State())
            if state.probed is not None:
                left = state.probed + _WAIT_FOR_PROBE - self._clock()
                self._changed.wait_for(lambda: state.probed is None, max(0.0, left))
            if state.error is None:
                return False
            if state.probed is not None or self._clock() < state.until:
                raise _again(state.error)
            state.probed = self._clock()
            return True

    def _end_probe(self, remote_id: str) -> None:
        with self._changed:
            if remote_id in self._states:
                self._states[remote_id].probed = None
            self._changed.notify_all()

    def _answered(self, remote_id: str) -> None:
        with self._changed:
            state = self._states.setdefault(remote_id, _State())
            state.reached, state.failures, state.error = True, 0, None
            state.answered = self._clock()

    def _failed(self, remote_id: str, error: UpstreamError) -> None:
        with self._changed:
            state = self._states.setdefault(remote_id, _State())
            state.failures += 1
            many = state.failures >= _FAILURES_IN_A_ROW
        if many:
            self._rest(remote_id, error, _asked_for(error.headers) or _REST_AFTER_FAILURES)

    def _rest(self, remote_id: str, error: UpstreamError, seconds: float) -> None:
        with self._changed:
            state = self._states.setdefault(remote_id, _State())
            odd = isinstance(error, NotAHub)
            if odd and state.error is None and self._clock() - state.answered < _SURELY_A_HUB:
                return
            # A copy: the exception itself holds on to the frames of the request it ended.
            state.error = _again(error)
            state.until = self._clock() + seconds


class RemoteWatch:
    """What the clients of one remote report to. Thread-safe; see `upstream.watch.Watch`."""

    def __init__(self, breaker: Breaker, remote_id: str) -> None:
        self._breaker = breaker
        self._remote_id = remote_id

    def check(self) -> None:
        """Raise `Offline` if the remote is not to be asked."""
        self._breaker.check_online(self._remote_id)

    def doubted(self) -> bool:
        """Whether it could not be reached when it was asked last."""
        return self._breaker.doubts(self._remote_id)

    def unreachable(self, error: UpstreamUnreachable, waited: float) -> None:
        """It could not be reached."""
        self._breaker.note_unreachable(self._remote_id, error, waited)


def _rest_after(waited: float) -> float:
    return min(max(waited * _REST_PER_SECOND_WAITED, _SHORTEST_REST), _LONGEST_REST)


def _again(error: UpstreamError) -> UpstreamError:
    return type(error)(
        error.message,
        advice=error.advice,
        status=error.status,
        code=error.code,
        headers=error.headers,
    )


def _asked_for(headers: Mapping[str, str]) -> float:
    """Return the seconds after which a limiting Hub wants to be asked again, 0 if it does not
    say."""
    asked = headers.get("Retry-After", "")
    if not asked.isdigit():
        asked = headers.get("RateLimit", "").rpartition("t=")[2]
    return min(float(asked), _LONGEST_REST) if asked.isascii() and asked.isdigit() else 0.0
