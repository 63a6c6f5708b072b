"""The query parameters that choose which records a list shows.

Responsible for: one table of filters per kind of record, and the predicates they make.
Not responsible for: paging, order and shape of a list (`pulp_lists`).

Filters look at records in the shape of an answer, so that nothing secret can be asked for.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping
from typing import Any

from jupyter_hf_cache.web.pulp_errors import field_error
from jupyter_hf_cache.web.pulp_fields import LABEL_KEY
from jupyter_hf_cache.web.pulp_hrefs import Collection

Row = Mapping[str, Any]
Predicate = Callable[[Row], bool]
Filter = Callable[[str, str], Predicate]
"""Makes a predicate of a parameter's name (for errors) and value."""

TEXT_LOOKUPS = (
    "",
    "iexact",
    "contains",
    "icontains",
    "startswith",
    "istartswith",
    "regex",
    "iregex",
    "in",
)

_LONGEST_PATTERN = 200
_MOST_REPEATS = 2
_REPEAT = re.compile(r"[*+?{]")
_TERM = re.compile(r"(?P<key>[\w .-]+?)\s*(?P<operator>!=|=|~)(?P<value>.*)")


def text_filters(field: str, lookups: tuple[str, ...] = TEXT_LOOKUPS) -> dict[str, Filter]:
    """Return the filters on a text field: "name", "name__contains", ..."""
    return {
        f"{field}__{lookup}" if lookup else field: _text_filter(field, lookup) for lookup in lookups
    }


def time_filters(
    field: str, lookups: tuple[str, ...] = ("", "gt", "gte", "lt", "lte", "range", "isnull")
) -> dict[str, Filter]:
    """Return the filters on a time: equal, before, after, a range, or absent."""
    return {
        f"{field}__{lookup}" if lookup else field: _time_filter(field, lookup) for lookup in lookups
    }


def identity_filters(collection: Collection) -> dict[str, Filter]:
    """Return the filters by address: `pulp_href__in`, `prn__in` and `pulp_id__in`."""

    def by_reference(name: str, value: str) -> Predicate:
        wanted = {collection.id_of(one) or one for one in _listed(value)}
        return lambda row: collection.id_of(row["pulp_href"]) in wanted

    return dict.fromkeys(("pulp_href__in", "prn__in", "pulp_id__in"), by_reference)


def unmatched(*names: str) -> dict[str, Filter]:
    """Return filters that are known in Pulp, but are about what no record here has."""
    return dict.fromkeys(names, lambda name, value: lambda row: False)


def member_filter(field: str) -> Filter:
    """Return a filter for rows in whose list `field` a value is."""
    return lambda name, value: lambda row: value in row[field]


def label_filter(name: str, value: str) -> Predicate:
    """Make the predicate of `pulp_label_select`: all of its comma-joined terms hold."""
    terms = [
        _label_term(name, term.replace("\\,", ",").strip()) for term in re.split(r"(?<!\\),", value)
    ]
    return lambda row: all(term(row["pulp_labels"]) for term in terms)


def _label_term(name: str, term: str) -> Predicate:
    absent = term.startswith("!")
    bare = term[1:].strip() if absent else term
    if LABEL_KEY.fullmatch(bare):
        return lambda labels: (bare in labels) != absent
    found = _TERM.fullmatch(term)
    if found is None:
        raise field_error(name, f"'{term}' is not a label filter: k, !k, k=v, k!=v or k~part.")
    key, operator, wanted = found["key"].strip(), found["operator"], found["value"].strip()
    if operator == "=":
        return lambda labels: key in labels and (labels[key] or "") == wanted
    if operator == "!=":
        return lambda labels: key in labels and (labels[key] or "") != wanted
    return lambda labels: key in labels and wanted.lower() in (labels[key] or "").lower()


def _text_filter(field: str, lookup: str) -> Filter:
    def make(name: str, value: str) -> Predicate:
        matches = _text_match(name, lookup, value)
        return lambda row: row[field] is not None and matches(row[field])

    return make


def _text_match(name: str, lookup: str, value: str) -> Callable[[str], bool]:
    folded = value.lower()
    if lookup == "in":
        wanted = set(_listed(value))
        return lambda text: text in wanted
    if lookup in ("regex", "iregex"):
        pattern = _pattern(name, value, re.IGNORECASE if lookup == "iregex" else 0)
        return lambda text: pattern.search(text) is not None
    simple: dict[str, Callable[[str], bool]] = {
        "": lambda text: text == value,
        "iexact": lambda text: text.lower() == folded,
        "contains": lambda text: value in text,
        "icontains": lambda text: folded in text.lower(),
        "startswith": lambda text: text.startswith(value),
        "istartswith": lambda text: text.lower().startswith(folded),
    }
    return simple[lookup]


def _pattern(name: str, value: str, flags: int) -> re.Pattern[str]:
    """Compile a client's pattern, if it cannot take for ever.

    Python's engine tries all ways to match and keeps the interpreter to itself meanwhile: the whole
    server would stand still. Few repeats, and none of a group, keep the number of ways small.
    """
    plain = re.sub(r"\\.|\[\^?\]?[^\]]*\]", "c", value)
    repeats = len(_REPEAT.findall(plain))
    if len(value) > _LONGEST_PATTERN or repeats > _MOST_REPEATS or re.search(r"\)[*+?{]", plain):
        raise field_error(
            name, f"Use at most {_MOST_REPEATS} repeats in a pattern, and none of a group."
        )
    try:
        return re.compile(value, flags)
    except (re.error, OverflowError, RecursionError):
        raise field_error(name, "This is not a regular expression.") from None


def _time_filter(field: str, lookup: str) -> Filter:
    def make(name: str, value: str) -> Predicate:
        matches = _time_match(name, lookup, value)
        return lambda row: matches(_time(name, row[field]) if row[field] else None)

    return make


def _time_match(name: str, lookup: str, value: str) -> Callable[[datetime.datetime | None], bool]:
    if lookup == "isnull":
        wanted = _boolean(name, value)
        return lambda moment: (moment is None) == wanted
    if lookup == "range":
        bounds = [_time(name, one) for one in _listed(value)]
        if len(bounds) != 2:
            raise field_error(name, "A range is two times with a comma between them.")
        return lambda moment: moment is not None and bounds[0] <= moment <= bounds[1]
    other = _time(name, value)
    comparisons: dict[str, Callable[[datetime.datetime], bool]] = {
        "": lambda moment: moment == other,
        "gt": lambda moment: moment > other,
        "gte": lambda moment: moment >= other,
        "lt": lambda moment: moment < other,
        "lte": lambda moment: moment <= other,
    }
    compare = comparisons[lookup]
    return lambda moment: moment is not None and compare(moment)


def _time(name: str, value: str) -> datetime.datetime:
    """Read ISO 8601, also with "Z" and with a zone without colon, as generated clients write."""
    text = re.sub(r"[zZ]$", "+00:00", value.strip())
    # A plus sign that was not escaped in the query arrives as a space.
    text = re.sub(r"[ +](\d\d):?(\d\d)$", r"+\1:\2", text) if "T" in text else text
    text = re.sub(r"-(\d\d)(\d\d)$", r"-\1:\2", text) if "T" in text else text
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise field_error(name, "Enter a valid date/time.") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)


def _boolean(name: str, value: str) -> bool:
    if value.lower() not in ("true", "false", "1", "0"):
        raise field_error(name, "Must be a valid boolean.")
    return value.lower() in ("true", "1")


def _listed(value: str) -> list[str]:
    return [one.strip() for one in value.split(",")]
