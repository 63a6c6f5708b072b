"""The status of the REST API.

Responsible for: telling clients, without credentials, that this is a Pulp API, of which version,
and where content is.
Not responsible for: the state of the cache itself (`cache_api`).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jupyter_hf_cache import __version__
from jupyter_hf_cache.web.handler import CONTENT_PREFIX
from jupyter_hf_cache.web.pulp_handler import PulpHandler

# What of Pulp this API behaves like: pulp-cli asks for a core of 3.49 or newer.
_CORE_VERSION = "3.49.0"


class StatusHandler(PulpHandler):
    """`status/`"""

    surface = "open"

    async def get(self) -> None:
        """Answer the status, also while there is no cache to speak of."""
        is_open = self.context.problem is None
        storage = None
        if is_open:
            directory = self.context.service.options.cache_dir
            storage = await self.context.run(_storage, directory)
        content = urlsplit(self.full_url(CONTENT_PREFIX))
        self.json(
            {
                "versions": [
                    _version("core", _CORE_VERSION),
                    _version("hugging_face", __version__),
                ],
                "online_workers": [],
                "online_api_apps": [],
                "online_content_apps": [],
                "database_connection": {"connected": is_open},
                "redis_connection": {"connected": False},
                "storage": storage,
                "content_settings": {
                    "content_origin": f"{content.scheme}://{content.netloc}",
                    "content_path_prefix": content.path,
                },
                "domain_enabled": False,
            }
        )

    head = get


def _version(component: str, version: str) -> dict[str, Any]:
    return {
        "component": component,
        "version": version,
        "package": "jupyter-hf-cache",
        "module": "jupyter_hf_cache",
        "domain_compatible": False,
    }


def _storage(directory: Path) -> dict[str, int] | None:
    try:
        usage = shutil.disk_usage(directory)
    except OSError:
        return None
    return {"total": usage.total, "used": usage.used, "free": usage.free}


ROUTES: list[tuple[str, type[PulpHandler]]] = [(r"pulp/api/v3/status/?", StatusHandler)]
