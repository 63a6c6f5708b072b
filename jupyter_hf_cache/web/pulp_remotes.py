"""Remotes in the REST API.

Responsible for: what is special about them: a create answers 201 at once, and masks of secrets may
come back.
Not responsible for: what all resources share (`pulp_resource`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jupyter_hf_cache.storage.records import Remote
from jupyter_hf_cache.web.pulp_filters import (
    identity_filters,
    label_filter,
    text_filters,
    time_filters,
)
from jupyter_hf_cache.web.pulp_handler import PulpHandler
from jupyter_hf_cache.web.pulp_hrefs import REMOTES
from jupyter_hf_cache.web.pulp_lists import ListRules
from jupyter_hf_cache.web.pulp_resource import (
    ItemHandler,
    Labels,
    ListHandler,
    Resource,
    SetLabelHandler,
    UnsetLabelHandler,
)
from jupyter_hf_cache.web.pulp_schema import (
    RemoteBody,
    Values,
    parse,
    parse_put,
    remote_answer,
    resolve_secrets,
)


class RemoteResource(Resource[Remote]):
    """Where content comes from."""

    noun = "remote"
    collection = REMOTES
    rules = ListRules(
        filters={
            **text_filters("name"),
            **time_filters("pulp_last_updated"),
            **identity_filters(REMOTES),
            "pulp_label_select": label_filter,
        },
        orderings=frozenset({"name", "url", "policy", "pulp_created", "pulp_last_updated"}),
    )
    body = RemoteBody
    labelled = 201

    def all(self) -> Sequence[Remote]:
        """See `Resource`."""
        return self.store.remotes()

    def get(self, record_id: str) -> Remote | None:
        """See `Resource`."""
        return self.store.remote(record_id)

    def answer(self, record: Remote) -> Values:
        """See `Resource`."""
        return remote_answer(record)

    def create(self, body: Values) -> Remote:
        """See `Resource`."""
        return self.store.create_remote(resolve_secrets(parse(RemoteBody, body), None))

    def update(self, record_id: str, body: Values, *, partial: bool) -> Remote:
        """See `Resource`."""

        def changes(present: Remote) -> Values:
            needed = {
                name: getattr(present, name) for name in ("name", "url", "hf_hub_url", "mirrors")
            }
            values = parse(RemoteBody, body, needed) if partial else parse_put(RemoteBody, body)
            return resolve_secrets(values, present)

        return self.store.update_remote(record_id, changes)

    def relabel(self, record_id: str, change: Callable[[Labels], Labels]) -> None:
        """See `Resource`."""
        self.store.update_remote(
            record_id, lambda present: {"pulp_labels": change(present.pulp_labels)}
        )

    def delete(self, record_id: str) -> None:
        """See `Resource`."""
        self.store.delete_remote(record_id)


class RemotesHandler(ListHandler):
    """`remotes/hugging_face/hugging-face/`"""

    kind = RemoteResource

    async def post(self) -> None:
        """Create a remote."""
        resource, body = self.resource, self.read_body(RemoteBody)
        self.json(await self._run(lambda: resource.answer(resource.create(body))), 201)


class AllRemotesHandler(ListHandler):
    """`remotes/`: all types of remotes, of which there is one."""

    kind = RemoteResource


class RemoteHandler(ItemHandler):
    """One remote."""

    kind = RemoteResource


class RemoteSetLabelHandler(SetLabelHandler):
    """`set_label/` of a remote."""

    kind = RemoteResource


class RemoteUnsetLabelHandler(UnsetLabelHandler):
    """`unset_label/` of a remote."""

    kind = RemoteResource


ROUTES: list[tuple[str, type[PulpHandler]]] = [
    (r"pulp/api/v3/remotes/?", AllRemotesHandler),
    (REMOTES.route, RemotesHandler),
    (REMOTES.item_route(), RemoteHandler),
    (REMOTES.item_route("set_label"), RemoteSetLabelHandler),
    (REMOTES.item_route("unset_label"), RemoteUnsetLabelHandler),
]
