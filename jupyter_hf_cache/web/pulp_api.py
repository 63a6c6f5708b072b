"""The routes of the REST API under `/pulp/api/v3/`.

Responsible for: collecting them, and answering for the parts of Pulp that this server does not
offer.
Not responsible for: the resources (`pulp_remotes`, `pulp_distributions`, `pulp_tasks`,
`pulp_status`).
"""

from __future__ import annotations

from jupyter_hf_cache.web import pulp_distributions, pulp_remotes, pulp_status, pulp_tasks
from jupyter_hf_cache.web.pulp_errors import ApiError, detail
from jupyter_hf_cache.web.pulp_handler import MissingHandler, PulpHandler

_UNOFFERED = r"pulp/api/v3/(?:repositories|publications)/"
_PLUGIN = "hugging_face/hugging-face/"


class UnofferedHandler(PulpHandler):
    """Repositories and publications: there are none, and none can be made."""

    async def get(self, path: str) -> None:
        """Answer an empty page for a list, 404 for anything in it."""
        if f"{path.strip('/')}/".removeprefix(_PLUGIN).strip("/"):
            raise detail(404, "Not found.")
        self.json({"count": 0, "next": None, "previous": None, "results": []})

    head = get

    async def post(self, path: str) -> None:
        """Refuse."""
        raise ApiError(
            501,
            {"detail": "Repositories and publications are not offered by this server."},
        )

    put = post
    patch = post
    delete = post


ROUTES: list[tuple[str, type[PulpHandler]]] = [
    *pulp_status.ROUTES,
    *pulp_remotes.ROUTES,
    *pulp_distributions.ROUTES,
    *pulp_tasks.ROUTES,
    (_UNOFFERED + r"(.*)", UnofferedHandler),
    (r"pulp/api/v3/.*", MissingHandler),
]
