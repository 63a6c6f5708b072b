"""Opening the service without waiting for it.

Responsible for: a thread that opens it, and words for what can go wrong.
Not responsible for: what is done with the service (`app`, `standalone`).
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

from jupyter_hf_cache.errors import HfCacheError

if TYPE_CHECKING:
    from jupyter_hf_cache.config import HfCache
    from jupyter_hf_cache.service import CacheService

logger = logging.getLogger(__name__)


def open_in_thread(config: HfCache) -> Future[CacheService]:
    """Begin to open the service.

    The thread is a daemon, and none of a pool that is joined at exit: a disk that hangs must not
    keep the process from ending.
    """
    future: Future[CacheService] = Future()

    def work() -> None:
        try:
            from jupyter_hf_cache.service import CacheService

            future.set_result(CacheService.open(config.service_options()))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="hf-cache-open", daemon=True).start()
    return future


def close_when_open(opening: Future[CacheService]) -> None:
    """Close a service that nobody waits for any more, as soon as it is open."""

    def close(done: Future[CacheService]) -> None:
        if not done.cancelled() and done.exception() is None:
            done.result().close()

    opening.add_done_callback(close)


def describe_failure(error: BaseException) -> str:
    """One or two sentences on why the service cannot be opened, for the log, the API and the UI."""
    if isinstance(error, HfCacheError):
        return error.text
    if isinstance(error, OSError) and error.filename is not None:
        return (
            f"{error.filename} cannot be used: {error.strerror}. "
            "Set c.HfCache.cache_dir and c.HfCache.data_dir to directories that can be written."
        )
    logger.error("the cache cannot be opened", exc_info=error)
    return f"The cache cannot be opened ({type(error).__name__}). The server's log has the details."
