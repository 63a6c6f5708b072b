"""Lists of the REST API: filters, order, pages, and which keys are shown.

Responsible for: turning query parameters and records into the body of a page.
Not responsible for: the filters themselves (`pulp_filters`), or where records come from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from jupyter_hf_cache.web.pulp_errors import ApiError, field_error
from jupyter_hf_cache.web.pulp_filters import Filter

Row = Mapping[str, Any]
Parameters = Mapping[str, Sequence[str]]
"""Decoded query parameters, each with all of its values."""

DEFAULT_LIMIT = 100

_SHAPE = frozenset({"limit", "offset", "ordering", "fields", "exclude_fields"})
_TOLERATED = frozenset({"minimal", "format", "page_size"})
# How a caller may have proved who they are: never part of a link that we write.
_CREDENTIALS = frozenset({"token", "_xsrf"})


@dataclass(frozen=True, slots=True)
class ListRules:
    """What a kind of record can be filtered and ordered by.

    Args:
        filters: by parameter name.
        orderings: names of fields.
    """

    filters: Mapping[str, Filter]
    orderings: frozenset[str]


def page(
    rows: Sequence[Row], parameters: Parameters, rules: ListRules, link: Callable[[str], str]
) -> dict[str, Any]:
    """Return the body of one page.

    Args:
        rows: all records in the shape of an answer, in any order.
        link: makes a full URL of this list from a query string.

    Raises:
        ApiError: 400, a parameter is unknown or its value makes no sense.
    """
    chosen = _order(_filter(rows, parameters, rules), parameters, rules)
    limit = _number(parameters, "limit", lowest=1, default=DEFAULT_LIMIT)
    offset = _number(parameters, "offset", lowest=0, default=0)
    following = offset + limit if offset + limit < len(chosen) else None
    preceding = max(offset - limit, 0) if offset > 0 else None
    return {
        "count": len(chosen),
        "next": _link(parameters, limit, following, link),
        "previous": _link(parameters, limit, preceding, link),
        "results": [shape(row, parameters) for row in chosen[offset : offset + limit]],
    }


def shape(row: Row, parameters: Parameters) -> dict[str, Any]:
    """Return the keys of a record that `fields` and `exclude_fields` leave."""
    wanted, unwanted = _names(parameters, "fields"), _names(parameters, "exclude_fields")
    return {
        name: value
        for name, value in row.items()
        if (not wanted or name in wanted) and name not in unwanted
    }


def _filter(rows: Sequence[Row], parameters: Parameters, rules: ListRules) -> list[Row]:
    predicates = []
    for name, values in parameters.items():
        if name in _SHAPE | _TOLERATED | _CREDENTIALS:
            continue
        if name == "q":
            raise field_error("q", "Complex filters are not offered by this server.")
        if name not in rules.filters:
            raise ApiError(400, {"errors": [f"Invalid Filter: '{name}'"]})
        value = ",".join(values) if name.endswith("__in") else values[-1]
        predicates.append(rules.filters[name](name, value))
    return [row for row in rows if all(predicate(row) for predicate in predicates)]


def _order(rows: list[Row], parameters: Parameters, rules: ListRules) -> list[Row]:
    ordered = sorted(rows, key=lambda row: (row["pulp_created"], row["pulp_href"]), reverse=True)
    for name in reversed(_list_of(parameters, "ordering")):
        field = name.removeprefix("-")
        if field not in rules.orderings:
            raise field_error(
                "ordering", f"Select a valid choice. {name} is not one of the available choices."
            )
        ordered.sort(key=lambda row: _sortable(row[field]), reverse=name != field)
    return ordered


def _sortable(value: Any) -> tuple[bool, Any]:
    return value is not None, value


def _number(parameters: Parameters, name: str, *, lowest: int, default: int) -> int:
    text = parameters.get(name, ("",))[-1].strip()
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        return default
    return int(text) if int(text) >= lowest else default


def _link(
    parameters: Parameters, limit: int, offset: int | None, link: Callable[[str], str]
) -> str | None:
    if offset is None:
        return None
    kept = [
        (name, value)
        for name, values in parameters.items()
        if name not in _CREDENTIALS | {"limit", "offset"}
        for value in values
    ]
    place = [("limit", str(limit))] + ([("offset", str(offset))] if offset else [])
    return link(urlencode([*kept, *place]))


def _names(parameters: Parameters, name: str) -> frozenset[str]:
    return frozenset(_list_of(parameters, name))


def _list_of(parameters: Parameters, name: str) -> list[str]:
    values = ",".join(parameters.get(name, ())).split(",")
    return [value.strip() for value in values if value.strip()]
