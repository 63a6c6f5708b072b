"""What a client is told about its upstream from outside, and tells of it.

Responsible for: the interface by which every request, also one of a download, learns whether the
upstream may be asked at all, and by which whoever remembers outages learns of one.
Not responsible for: remembering them (`service.breaker`).
"""

from __future__ import annotations

from typing import Protocol

from jupyter_hf_cache.errors import UpstreamUnreachable


class Watch(Protocol):
    """Somebody who watches over one upstream. Thread-safe; does not block."""

    def check(self) -> None:
        """Called before each request, and while a body arrives.

        Raises:
            Offline: the upstream is not to be asked.
        """
        ...

    def doubted(self) -> bool:
        """Whether it could not be reached when it was asked last: then one try is enough."""
        ...

    def unreachable(self, error: UpstreamUnreachable, waited: float) -> None:
        """It could not be reached.

        Args:
            waited: seconds that it took to find out.
        """
        ...


class Unwatched:
    """Nobody watches: it may be asked as often as somebody likes."""

    def check(self) -> None:
        """Nothing."""

    def doubted(self) -> bool:
        """No."""
        return False

    def unreachable(self, error: UpstreamUnreachable, waited: float) -> None:
        """Nothing."""
