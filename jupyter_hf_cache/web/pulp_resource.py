"""What remotes and distributions have in common as REST resources.

Responsible for: the handlers of a collection, of one resource and of its labels, over a `Resource`
that knows the kind; writing the tasks that Pulp's clients expect.
Not responsible for: the kinds themselves (`pulp_remotes`, `pulp_distributions`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from jupyter_hf_cache.storage.config_store import ConfigStore, now
from jupyter_hf_cache.web.pulp_errors import detail, field_error
from jupyter_hf_cache.web.pulp_handler import PulpHandler
from jupyter_hf_cache.web.pulp_hrefs import TASKS, Collection
from jupyter_hf_cache.web.pulp_lists import ListRules, page, shape
from jupyter_hf_cache.web.pulp_schema import (
    Body,
    SetLabelBody,
    UnsetLabelBody,
    Values,
    parse,
)

Record = TypeVar("Record")
Labels = dict[str, str | None]


class Resource(ABC, Generic[Record]):
    """One kind of REST resource; its methods block on disk.

    Attributes:
        noun: as it appears in the names of tasks.
        body: what may be written.
        labelled: status of a successful change of labels; generated clients know one per kind.
    """

    noun: ClassVar[str]
    collection: ClassVar[Collection]
    rules: ClassVar[ListRules]
    body: ClassVar[type[Body]]
    labelled: ClassVar[int]

    def __init__(self, store: ConfigStore, content_url: Callable[[str], str]) -> None:
        self.store = store
        self.content_url = content_url

    @abstractmethod
    def all(self) -> Sequence[Record]:
        """Return all records."""

    @abstractmethod
    def get(self, record_id: str) -> Record | None:
        """Return one record, or None."""

    @abstractmethod
    def answer(self, record: Record) -> Values:
        """Return a record as clients see it."""

    @abstractmethod
    def create(self, body: Values) -> Record:
        """Check a body and add a record."""

    @abstractmethod
    def update(self, record_id: str, body: Values, *, partial: bool) -> Record:
        """Check the body of a PATCH (`partial`) or PUT and change a record."""

    @abstractmethod
    def relabel(self, record_id: str, change: Callable[[Labels], Labels]) -> None:
        """Change the labels of a record in one transaction."""

    @abstractmethod
    def delete(self, record_id: str) -> None:
        """Remove a record."""

    def existing(self, record_id: str) -> Record:
        """Return one record.

        Raises:
            ApiError: 404.
        """
        record = self.get(record_id)
        if record is None:
            raise detail(404, "Not found.")
        return record

    def create_with_task(self, body: Values) -> Values:
        """Add a record and return the answer with the address of its task."""
        started = now()
        record = self.create(body)
        answer = self.answer(record)
        task = self.store.tasks.record(
            f"hugging_face.{self.noun}.create",
            started=started,
            finished=now(),
            created_resources=[answer["pulp_href"]],
            reserved_resources=[self.collection.href],
            result=answer,
        )
        return {**answer, "task": TASKS.href_of(task.id)}

    def delete_with_task(self, record_id: str) -> Values:
        """Remove a record and return the address of its task."""
        started = now()
        self.delete(record_id)
        task = self.store.tasks.record(
            f"hugging_face.{self.noun}.delete",
            started=started,
            finished=now(),
            reserved_resources=[self.collection.href_of(record_id)],
        )
        return {"task": TASKS.href_of(task.id)}

    def set_label(self, record_id: str, body: Values) -> Values:
        """Set one label and return it."""
        label = parse(SetLabelBody, body)
        self.relabel(record_id, lambda labels: {**labels, label["key"]: label["value"]})
        return label

    def unset_label(self, record_id: str, body: Values) -> Values:
        """Remove one label and return what it was."""
        key = parse(UnsetLabelBody, body)["key"]
        removed: Labels = {}

        def remove(labels: Labels) -> Labels:
            if key not in labels:
                raise field_error("key", f"Label '{key}' is not set on the object.")
            removed[key] = labels[key]
            return {name: value for name, value in labels.items() if name != key}

        self.relabel(record_id, remove)
        return {"key": key, "value": removed[key]}


class ResourceHandler(PulpHandler):
    """Base of the handlers of one kind."""

    kind: ClassVar[type[Resource[Any]]]

    @property
    def resource(self) -> Resource[Any]:
        """The kind, over this server's configuration and this client's URLs."""
        return self.kind(self.store, self.content_url)

    async def _run(self, function: Callable[..., Values], *arguments: Any) -> Values:
        return await self.context.run(function, *arguments)


class ListHandler(ResourceHandler):
    """All resources of a kind."""

    async def get(self) -> None:
        """Answer a page."""
        self.json(await self._run(self._page, self.resource, self.parameters))

    head = get

    def _page(self, resource: Resource[Any], parameters: dict[str, list[str]]) -> Values:
        rows = [resource.answer(record) for record in resource.all()]
        return page(rows, parameters, resource.rules, self.list_url)


class ItemHandler(ResourceHandler):
    """One resource."""

    async def get(self, record_id: str) -> None:
        """Answer the resource."""
        resource = self.resource
        record = await self.context.run(resource.existing, record_id.lower())
        self.json(shape(resource.answer(record), self.parameters))

    head = get

    async def put(self, record_id: str) -> None:
        """Replace the resource."""
        await self._update(record_id, partial=False)

    async def patch(self, record_id: str) -> None:
        """Change the given fields."""
        await self._update(record_id, partial=True)

    async def delete(self, record_id: str) -> None:
        """Remove the resource."""
        self.json(await self._run(self.resource.delete_with_task, record_id.lower()), 202)

    async def _update(self, record_id: str, *, partial: bool) -> None:
        resource = self.resource
        body = self.read_body(resource.body)

        def update() -> Values:
            return resource.answer(resource.update(record_id.lower(), body, partial=partial))

        self.json(await self._run(update))


class SetLabelHandler(ResourceHandler):
    """The action that sets a label."""

    async def post(self, record_id: str) -> None:
        """Set it."""
        body = self.read_body(SetLabelBody)
        answer = await self._run(self.resource.set_label, record_id.lower(), body)
        self.json(answer, self.kind.labelled)


class UnsetLabelHandler(ResourceHandler):
    """The action that removes a label."""

    async def post(self, record_id: str) -> None:
        """Remove it."""
        body = self.read_body(UnsetLabelBody)
        answer = await self._run(self.resource.unset_label, record_id.lower(), body)
        self.json(answer, self.kind.labelled)
