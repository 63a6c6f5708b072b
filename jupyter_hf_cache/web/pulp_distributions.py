"""Distributions in the REST API.

Responsible for: what is special about them: the reference to a remote, and a create that answers
202 with the resource and its task.
Not responsible for: what all resources share (`pulp_resource`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jupyter_hf_cache.storage.records import Distribution
from jupyter_hf_cache.web.pulp_filters import (
    identity_filters,
    label_filter,
    text_filters,
    unmatched,
)
from jupyter_hf_cache.web.pulp_handler import PulpHandler
from jupyter_hf_cache.web.pulp_hrefs import DISTRIBUTIONS
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
    DistributionBody,
    Values,
    distribution_answer,
    parse,
    parse_put,
    resolve_remote,
)


class DistributionResource(Resource[Distribution]):
    """Where content is served."""

    noun = "distribution"
    collection = DISTRIBUTIONS
    rules = ListRules(
        filters={
            **text_filters("name"),
            **text_filters("base_path", ("", "contains", "icontains", "in")),
            **identity_filters(DISTRIBUTIONS),
            **unmatched("repository", "repository__in", "with_content", "checkpoint"),
            "pulp_label_select": label_filter,
        },
        orderings=frozenset(
            {"name", "base_path", "hidden", "access", "pulp_created", "pulp_last_updated"}
        ),
    )
    body = DistributionBody
    labelled = 200

    def all(self) -> Sequence[Distribution]:
        """See `Resource`."""
        return self.store.distributions()

    def get(self, record_id: str) -> Distribution | None:
        """See `Resource`."""
        return self.store.distribution(record_id)

    def answer(self, record: Distribution) -> Values:
        """See `Resource`."""
        return distribution_answer(record, self.content_url)

    def create(self, body: Values) -> Distribution:
        """See `Resource`."""
        return self.store.create_distribution(resolve_remote(parse(DistributionBody, body)))

    def update(self, record_id: str, body: Values, *, partial: bool) -> Distribution:
        """See `Resource`."""

        def changes(present: Distribution) -> Values:
            needed = {"name": present.name, "base_path": present.base_path}
            if partial:
                return resolve_remote(parse(DistributionBody, body, needed))
            return resolve_remote(parse_put(DistributionBody, body))

        return self.store.update_distribution(record_id, changes)

    def relabel(self, record_id: str, change: Callable[[Labels], Labels]) -> None:
        """See `Resource`."""
        self.store.update_distribution(
            record_id, lambda present: {"pulp_labels": change(present.pulp_labels)}
        )

    def delete(self, record_id: str) -> None:
        """See `Resource`."""
        self.store.delete_distribution(record_id)


class DistributionsHandler(ListHandler):
    """`distributions/hugging_face/hugging-face/`"""

    kind = DistributionResource

    async def post(self) -> None:
        """Create a distribution.

        Pulp answers with a task alone. The resource beside it costs a client nothing that wants the
        task, and spares everybody else a second request.
        """
        body = self.read_body(DistributionBody)
        self.json(await self._run(self.resource.create_with_task, body), 202)


class AllDistributionsHandler(ListHandler):
    """`distributions/`: all types of distributions, of which there is one."""

    kind = DistributionResource


class DistributionHandler(ItemHandler):
    """One distribution."""

    kind = DistributionResource


class DistributionSetLabelHandler(SetLabelHandler):
    """`set_label/` of a distribution."""

    kind = DistributionResource


class DistributionUnsetLabelHandler(UnsetLabelHandler):
    """`unset_label/` of a distribution."""

    kind = DistributionResource


ROUTES: list[tuple[str, type[PulpHandler]]] = [
    (r"pulp/api/v3/distributions/?", AllDistributionsHandler),
    (DISTRIBUTIONS.route, DistributionsHandler),
    (DISTRIBUTIONS.item_route(), DistributionHandler),
    (DISTRIBUTIONS.item_route("set_label"), DistributionSetLabelHandler),
    (DISTRIBUTIONS.item_route("unset_label"), DistributionUnsetLabelHandler),
]
