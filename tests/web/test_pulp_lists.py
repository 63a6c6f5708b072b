"""Filters, order and pages of lists."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from pulp_server import DISTRIBUTIONS, REMOTES, PulpServer, pulp_server

from jupyter_hf_cache.web.pulp_errors import ApiError
from jupyter_hf_cache.web.pulp_filters import label_filter, text_filters, time_filters
from jupyter_hf_cache.web.pulp_lists import ListRules, page

RULES = ListRules(
    filters={
        **text_filters("name"),
        **time_filters("pulp_last_updated"),
        "pulp_label_select": label_filter,
    },
    orderings=frozenset({"name", "pulp_created", "max_retries"}),
)
LABELS: list[dict[str, str | None]] = [
    {"env": "prod", "team": "a,b"},
    {"env": "Test"},
    {"team": None},
    {},
]


def rows() -> list[dict[str, Any]]:
    return [
        {
            "pulp_href": f"/{number}/",
            "pulp_created": f"2026-01-0{number}T00:00:00.000000Z",
            "pulp_last_updated": f"2026-02-0{number}T00:00:00.000000Z",
            "name": name,
            "max_retries": retries,
            "pulp_labels": labels,
        }
        for number, name, retries, labels in zip(
            (1, 2, 3, 4),
            ("alpha", "Beta", "gamma.x", "delta"),
            (3, None, 1, 3),
            LABELS,
            strict=True,
        )
    ]


def names(**parameters: str) -> list[str]:
    body = page(rows(), {key: [value] for key, value in parameters.items()}, RULES, lambda q: q)
    return [row["name"] for row in body["results"]]


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("name", "alpha", "alpha"),
        ("name", "ALPHA", ""),
        ("name__iexact", "ALPHA", "alpha"),
        ("name__contains", "ta", "delta Beta"),
        ("name__contains", "TA", ""),
        ("name__icontains", "TA", "delta Beta"),
        ("name__startswith", "B", "Beta"),
        ("name__istartswith", "b", "Beta"),
        ("name__regex", "^.e", "delta Beta"),
        ("name__regex", "^b", ""),
        ("name__iregex", "^b", "Beta"),
        ("name__regex", r"a\.x$", "gamma.x"),
        ("name__regex", "[*+?]*", "delta gamma.x Beta alpha"),
        ("name__in", "alpha, delta,nothing", "delta alpha"),
        ("pulp_last_updated", "2026-02-02T00:00:00Z", "Beta"),
        ("pulp_last_updated__gt", "2026-02-02T00:00:00.000000+0000", "delta gamma.x"),
        ("pulp_last_updated__gt", "2026-02-02T00:00:00.000000 0000", "delta gamma.x"),
        ("pulp_last_updated__gte", "2026-02-03", "delta gamma.x"),
        ("pulp_last_updated__lt", "2026-02-02T01:00:00+02:00", "alpha"),
        ("pulp_last_updated__lte", "2026-02-01T19:00:00-0500", "Beta alpha"),
        ("pulp_last_updated__range", "2026-02-02,2026-02-03T00:00:00Z", "gamma.x Beta"),
        ("pulp_last_updated__isnull", "true", ""),
        ("pulp_last_updated__isnull", "False", "delta gamma.x Beta alpha"),
        ("pulp_label_select", "env=prod", "alpha"),
        ("pulp_label_select", "env!=prod", "Beta"),
        ("pulp_label_select", "env~TES", "Beta"),
        ("pulp_label_select", "env", "Beta alpha"),
        ("pulp_label_select", "!env", "delta gamma.x"),
        ("pulp_label_select", "team,!env", "gamma.x"),
        ("pulp_label_select", r"team=a\,b,env=prod", "alpha"),
        ("pulp_label_select", "team=", "gamma.x"),
        ("limit", "2", "delta gamma.x"),
        ("limit", "0", "delta gamma.x Beta alpha"),
        ("limit", "-1", "delta gamma.x Beta alpha"),
        ("limit", "many", "delta gamma.x Beta alpha"),
        ("offset", "3", "alpha"),
        ("offset", "-3", "delta gamma.x Beta alpha"),
        ("offset", "x", "delta gamma.x Beta alpha"),
        ("offset", "9", ""),
        ("ordering", "name", "Beta alpha delta gamma.x"),
        ("ordering", "-name", "gamma.x delta alpha Beta"),
        ("ordering", "pulp_created", "alpha Beta gamma.x delta"),
        ("ordering", "-max_retries,name", "alpha delta gamma.x Beta"),
        ("ordering", "max_retries", "Beta gamma.x delta alpha"),
        ("minimal", "true", "delta gamma.x Beta alpha"),
        ("format", "json", "delta gamma.x Beta alpha"),
        ("token", "x", "delta gamma.x Beta alpha"),
    ],
)
def test_a_parameter_chooses_and_orders(name: str, value: str, found: str) -> None:
    assert names(**{name: value}) == found.split()


@pytest.mark.parametrize(
    ("name", "value", "body"),
    [
        ("nonsense", "x", {"errors": ["Invalid Filter: 'nonsense'"]}),
        ("name__nonsense", "x", {"errors": ["Invalid Filter: 'name__nonsense'"]}),
        ("hf_token", "x", {"errors": ["Invalid Filter: 'hf_token'"]}),
        ("ordering", "url", {"ordering": None}),
        ("ordering", "-", {"ordering": None}),
        ("pulp_label_select", "a/b", {"pulp_label_select": None}),
        ("pulp_label_select", "a=b,", {"pulp_label_select": None}),
        ("pulp_label_select", "!a=b", {"pulp_label_select": None}),
        ("pulp_last_updated__gt", "yesterday", {"pulp_last_updated__gt": None}),
        ("pulp_last_updated__range", "2026-01-01", {"pulp_last_updated__range": None}),
        ("pulp_last_updated__isnull", "maybe", {"pulp_last_updated__isnull": None}),
        ("name__regex", "(", {"name__regex": None}),
        ("name__regex", "(a|a)*b", {"name__regex": None}),
        ("name__regex", "(a+)+b", {"name__regex": None}),
        ("name__regex", "a*a*a*b", {"name__regex": None}),
        ("name__regex", "a{1,99}" * 3, {"name__regex": None}),
        ("name__regex", "a" * 201, {"name__regex": None}),
        ("q", "name=x", {"q": None}),
    ],
)
def test_a_parameter_that_makes_no_sense_is_refused(
    name: str, value: str, body: dict[str, Any]
) -> None:
    with pytest.raises(ApiError) as raised:
        names(**{name: value})
    assert raised.value.status == 400
    assert list(raised.value.body) == list(body)
    if body.get("errors"):
        assert raised.value.body == body


def test_repeated_and_joined_values_of_a_list_filter_count_alike() -> None:
    repeated = page(rows(), {"name__in": ["alpha", "delta"]}, RULES, str)
    joined = page(rows(), {"name__in": ["alpha,delta"]}, RULES, str)
    assert repeated["results"] == joined["results"] != []
    assert page(rows(), {"name": ["alpha", "delta"]}, RULES, str)["count"] == 1


@pytest.mark.parametrize(("limit", "offset"), list(itertools.product((1, 2, 3, 100), (0, 1, 2, 3))))
def test_pages_link_to_their_neighbours(limit: int, offset: int) -> None:
    parameters = {"limit": [str(limit)], "offset": [str(offset)], "name__icontains": ["a", "a"]}
    body = page(rows(), parameters, RULES, lambda query: query)
    assert body["count"] == 4
    assert len(body["results"]) == min(limit, 4 - offset)
    query = f"name__icontains=a&name__icontains=a&limit={limit}"
    after = offset + limit
    assert body["next"] == (f"{query}&offset={after}" if after < 4 else None)
    before = max(offset - limit, 0)
    expected = f"{query}&offset={before}" if before else query
    assert body["previous"] == (expected if offset else None)


def test_links_hold_no_credential() -> None:
    parameters = {"limit": ["1"], "token": ["SECRET"], "_xsrf": ["SECRET"]}
    assert page(rows(), parameters, RULES, lambda query: query)["next"] == "limit=1&offset=1"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PulpServer]:
    with pulp_server(tmp_path) as running:
        yield running


def test_following_next_shows_everything_once(server: PulpServer) -> None:
    created = [server.remote(name=f"r{number}")["name"] for number in range(7)]
    path, seen = f"{REMOTES}?limit=3&name__startswith=r", []
    while path:
        body = server.get(path).json()
        assert body["count"] == 7
        seen += [row["name"] for row in body["results"]]
        assert (body["next"] or server.host).startswith(server.host)
        path = (body["next"] or "").removeprefix(server.host)
    assert seen == created[::-1]


def test_records_are_found_by_their_addresses(server: PulpServer) -> None:
    one, _ = server.remote(name="one"), server.remote(name="two")
    for name, value in (
        ("pulp_href__in", one["pulp_href"]),
        ("pulp_href__in", "/user/alice" + one["pulp_href"]),
        ("prn__in", one["prn"]),
        ("pulp_id__in", one["prn"].split(":")[-1]),
    ):
        body = server.get(f"{REMOTES}?{name}={quote(value)},nothing").json()
        assert [row["name"] for row in body["results"]] == ["one"], name


def test_distributions_are_found_by_their_path(server: PulpServer) -> None:
    server.distribution(name="one", base_path="a/b")
    server.distribution(name="two", base_path="C")
    for query, found in (
        ("base_path=a/b", ["one"]),
        ("base_path__contains=/", ["one"]),
        ("base_path__icontains=c", ["two"]),
        ("base_path__in=C,a/b", ["two", "one"]),
        ("with_content=true", []),
        ("repository=x", []),
    ):
        body = server.get(f"{DISTRIBUTIONS}?{query}").json()
        assert [row["name"] for row in body["results"]] == found, query
    assert server.get(f"{DISTRIBUTIONS}?base_path__regex=a").status_code == 400


def test_a_list_shows_the_wanted_keys(server: PulpServer) -> None:
    server.remote()
    (row,) = server.get(f"{REMOTES}?fields=name&fields=prn").json()["results"]
    assert sorted(row) == ["name", "prn"]


def test_a_second_process_shows_the_change(tmp_path: Path) -> None:
    def wait_for(condition: Callable[[], bool]) -> None:
        waited = threading.Event()
        for _ in range(200):
            if condition():
                return
            waited.wait(0.05)
        raise AssertionError("the change was not seen")

    with pulp_server(tmp_path) as one, pulp_server(tmp_path) as other:
        href = one.remote(hf_token="hf_a")["pulp_href"]
        wait_for(lambda: other.get(href).status_code == 200)
        other.call("PATCH", href, {"hf_token": "hf_b"})
        wait_for(lambda: one.store.remotes()[0].hf_token == "hf_b")
        one.call("DELETE", href)
        wait_for(lambda: other.get(href).status_code == 404)
