"""Lists of repos and search: /api/{type}.

Responsible for: filters, order, paging.
Not responsible for: one repo's fields (`info`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import accounts, info
from .api import asked_fields, flag, paginate
from .catalogue import Repo

if TYPE_CHECKING:
    from .routes import HubHandler


async def answer_list(handler: HubHandler, type: str) -> None:
    """The repos of a type that this caller may see."""
    repos = {repo.id: repo for repo in _found(handler, type)}
    names = sorted(repos)
    page, link = paginate(handler, names, handler.hub.list_page_size)
    full, expand = flag(handler, "full"), asked_fields(handler)
    rows = [
        info.repo_info(repos[name], repos[name].head, expand=expand, full=full) for name in page
    ]
    await handler.answer_json(rows, headers=link)


def _found(handler: HubHandler, type: str) -> list[Repo]:
    search = handler.get_query_argument("search", "").lower()
    author = handler.get_query_argument("author", "")
    wanted = {tag for value in handler.get_query_arguments("filter") for tag in value.split(",")}
    return [
        repo
        for repo in handler.hub.catalogue.all(type)
        if accounts.may_see(repo, handler.user)
        and search in repo.id.lower()
        and (not author or repo.id.startswith(f"{author}/"))
        and wanted <= set(repo.tags)
    ]
