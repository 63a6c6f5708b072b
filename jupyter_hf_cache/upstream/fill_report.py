"""What people are told about a fill.

Responsible for: describing a running or ended one.
Not responsible for: which there are (`upstream.fills`), or how it is shown (`web.cache_api`).
"""

from __future__ import annotations

from dataclasses import dataclass

from jupyter_hf_cache.upstream.growing import Growing


@dataclass(frozen=True, slots=True)
class FillReport:
    """One running or ended fill, for people."""

    blob: str
    claim: list[str]
    size: int
    done: int
    speed: float
    readers: int
    started: float
    state: str
    error: str | None


def report(fill: Growing, state: str | None = None) -> FillReport:
    """Describe a fill as it stands, or as ended in `state`."""
    return FillReport(
        blob=fill.blob.name,
        claim=list(fill.sources[0].claim),
        size=fill.size,
        done=fill.done,
        speed=fill.speed(),
        readers=fill.readers,
        started=fill.started,
        state=state or fill.state,
        error=fill.error.message if fill.error is not None else None,
    )
