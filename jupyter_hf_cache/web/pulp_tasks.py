"""Tasks in the REST API.

Responsible for: showing what was done, in the shape that Pulp's clients poll for. All work is done
before its task is written, so that every task is completed.
Not responsible for: writing tasks (`pulp_resource`) or keeping them (`storage.tasks`).
"""

from __future__ import annotations

from typing import Any

from jupyter_hf_cache.storage.tasks import Task
from jupyter_hf_cache.web.pulp_errors import ApiError, detail, field_error
from jupyter_hf_cache.web.pulp_filters import (
    identity_filters,
    member_filter,
    text_filters,
    time_filters,
    unmatched,
)
from jupyter_hf_cache.web.pulp_handler import PulpHandler
from jupyter_hf_cache.web.pulp_hrefs import DISTRIBUTIONS, REMOTES, TASKS
from jupyter_hf_cache.web.pulp_lists import ListRules, page, shape
from jupyter_hf_cache.web.pulp_schema import Body, Values, parse

_RULES = ListRules(
    filters={
        **text_filters("state", ("", "in")),
        **text_filters("name"),
        **text_filters("logging_cid", ("", "contains")),
        **time_filters("pulp_created"),
        **time_filters("started_at"),
        **time_filters("unblocked_at"),
        **time_filters("finished_at"),
        **identity_filters(TASKS),
        "created_resources": member_filter("created_resources"),
        "reserved_resources": member_filter("reserved_resources_record"),
        **unmatched(
            "parent_task",
            "child_tasks",
            "task_group",
            "worker",
            "worker__in",
            "reserved_resources__in",
            "exclusive_resources",
            "exclusive_resources__in",
            "shared_resources",
            "shared_resources__in",
        ),
    },
    orderings=frozenset({"name", "state", "pulp_created", "started_at", "finished_at"}),
)


class TaskBody(Body):
    """What may be written to a task."""

    state: str


def task_answer(task: Task) -> Values:
    """Return a task as clients see it."""
    return {
        "pulp_href": TASKS.href_of(task.id),
        "prn": TASKS.prn_of(task.id),
        "pulp_created": task.started,
        "pulp_last_updated": task.finished,
        "state": "completed",
        "name": task.name,
        "logging_cid": "",
        "created_by": None,
        "unblocked_at": task.started,
        "started_at": task.started,
        "finished_at": task.finished,
        "error": None,
        "worker": None,
        "parent_task": None,
        "child_tasks": [],
        "task_group": None,
        "progress_reports": [],
        "created_resources": task.created_resources,
        "created_resource_prns": [_prn(href) for href in task.created_resources],
        "reserved_resources_record": task.reserved_resources,
        "result": task.result,
        "pulp_api_version": "v3",
    }


class TasksHandler(PulpHandler):
    """`tasks/`"""

    async def get(self) -> None:
        """Answer a page."""
        parameters = self.parameters
        store = self.store

        def read_page() -> dict[str, Any]:
            rows = [task_answer(task) for task in store.tasks.all()]
            return page(rows, parameters, _RULES, self.list_url)

        self.json(await self.context.run(read_page))

    head = get


class TaskHandler(PulpHandler):
    """One task."""

    async def get(self, task_id: str) -> None:
        """Answer the task."""
        self.json(shape(task_answer(await self._existing(task_id)), self.parameters))

    head = get

    async def patch(self, task_id: str) -> None:
        """Refuse to cancel: the task is over."""
        body = parse(TaskBody, self.read_body(TaskBody))
        await self._existing(task_id)
        if body["state"] != "canceled":
            raise field_error("state", "The only acceptable value for state is 'canceled'.")
        raise ApiError(409, {"detail": "The task is over and cannot be canceled."})

    async def delete(self, task_id: str) -> None:
        """Forget the task."""
        if not await self.context.run(self.store.tasks.delete, task_id.lower()):
            raise detail(404, "Not found.")
        self.set_status(204)

    async def _existing(self, task_id: str) -> Task:
        task = await self.context.run(self.store.tasks.get, task_id.lower())
        if task is None:
            raise detail(404, "Not found.")
        return task


def _prn(href: str) -> str:
    for collection in (REMOTES, DISTRIBUTIONS):
        resource_id = collection.id_of(href)
        if resource_id is not None:
            return collection.prn_of(resource_id)
    return ""


ROUTES: list[tuple[str, type[PulpHandler]]] = [
    (TASKS.route, TasksHandler),
    (TASKS.item_route(), TaskHandler),
]
