"""What a `CacheService` needs to know to open.

Responsible for: one record of options, free of any configuration framework.
Not responsible for: where they come from (`config`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jupyter_hf_cache.storage.records import DEFAULT_HUB
from jupyter_hf_cache.upstream.policy import Lifetimes


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """Options of one cache. Sizes are bytes, times seconds.

    Args:
        cache_dir: may be deleted at any time.
        data_dir: configuration, access records: may not be lost.
        config_dir: holds the key file.
        state_dir: where the tables about `cache_dir` lie when that is on a network file system;
        None: inside.
        data_state_dir: the same for the tables of `data_dir`; the copy of the configuration stays
            in `data_dir`, and fills a new table.
        default_upstream: the URL of the remote `default` when it is first made.
        cache_size_limit: None: a fifth of the disk, at most 200 GB.
        adopt_from: directories laid out like HF_HUB_CACHE, of the user this runs as.
        adopt_by_link: hard links instead of copies from there.
        pass_through_large_files: what is too large for plain HTTP is loaded by Xet, past the cache;
            else it is refused with words.
        single_user: all trusted callers are one person, so that the remote's stored token is
        theirs.
    """

    cache_dir: Path
    data_dir: Path
    config_dir: Path
    state_dir: Path | None = None
    data_state_dir: Path | None = None
    default_upstream: str = DEFAULT_HUB
    cache_size_limit: int | None = None
    min_free_space: int = 10 * 10**9
    revision_ttl: float = 60.0
    metadata_ttl: float = 60.0
    negative_ttl: float = 60.0
    access_ttl: float = 60.0
    access_grace: float = 3600.0
    linger: float = 60.0
    adopt_from: tuple[Path, ...] = ()
    adopt_by_link: bool = False
    offline: bool = False
    read_only: bool = False
    pass_through_large_files: bool = True
    single_user: bool = True

    @property
    def lifetimes(self) -> Lifetimes:
        """How long answers of the upstream hold."""
        return Lifetimes(
            revision=self.revision_ttl,
            metadata=self.metadata_ttl,
            negative=self.negative_ttl,
            access=self.access_ttl,
            access_grace=self.access_grace,
        )
