"""Web pages of other origins: refused, unless the operator named their origin."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from fake_hub import FakeHub
from serving import RunningCache

from jupyter_hf_cache.config import HfCache
from jupyter_hf_cache.web.context import AccessOptions
from jupyter_hf_cache.web.cors import CorsRules, parse_origins

PAGES = "https://pages.example.org"
FILE = "/bert-base-uncased/resolve/main/config.json"
PREFLIGHT = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "range"}
ALLOW = "Access-Control-Allow-Origin"


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    with FakeHub.with_defaults() as hub:
        yield hub


def serving(root: Path, hub: FakeHub, *origins: str) -> RunningCache:
    return RunningCache(root, hub, access=AccessOptions(cors=CorsRules(parse_origins(origins))))


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory, hub: FakeHub) -> Iterator[RunningCache]:
    with serving(tmp_path_factory.mktemp("closed"), hub) as cache:
        yield cache


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, hub: FakeHub) -> Iterator[RunningCache]:
    with serving(tmp_path_factory.mktemp("opened"), hub, PAGES) as cache:
        yield cache


@pytest.fixture(scope="module")
def for_all(tmp_path_factory: pytest.TempPathFactory, hub: FakeHub) -> Iterator[RunningCache]:
    with serving(tmp_path_factory.mktemp("for-all"), hub, "*") as cache:
        yield cache


def page(origin: str = PAGES, **headers: str) -> dict[str, str]:
    """What a browser says of a page that asks."""
    return {"Origin": origin, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors", **headers}


def cors_headers(answer: requests.Response) -> list[str]:
    return [name for name in answer.headers if name.lower().startswith("access-control-")]


@pytest.mark.parametrize(
    ("given", "origin"),
    [
        ("https://pages.example.org", "https://pages.example.org"),
        ("HTTPS://Pages.Example.org/", "https://pages.example.org"),
        ("https://pages.example.org:443", "https://pages.example.org"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("*", "*"),
    ],
)
def test_an_origin_is_written_as_browsers_write_it(given: str, origin: str) -> None:
    assert parse_origins([given]) == {origin}


@pytest.mark.parametrize(
    "given",
    ["", "null", "example.org", "https://", "https://a.org/path", "https://u@a.org", "https://a:x"],
)
def test_what_is_no_origin_is_an_error_of_the_configuration(given: str) -> None:
    with pytest.raises(ValueError):
        parse_origins([given])


def test_a_jupyter_server_ignores_the_option() -> None:
    cache = HfCache(cors_origins=["*"])
    assert not cache.access_options(ip="127.0.0.1").cors.allows(PAGES)
    assert cache.access_options(ip="127.0.0.1", pages=True).cors.allows(PAGES)


def test_without_the_option_a_page_gets_nothing(closed: RunningCache) -> None:
    refused = closed.get(FILE, headers=page())
    assert refused.status_code == 403
    asked = closed.request("OPTIONS", FILE, headers=page(**PREFLIGHT))
    assert asked.status_code == 403
    programs = closed.get(FILE)
    assert programs.status_code == 200
    assert closed.request("OPTIONS", FILE).status_code == 405
    assert not any(map(cors_headers, (refused, asked, programs)))


def test_a_page_of_an_allowed_origin_reads_and_sees_the_head(opened: RunningCache) -> None:
    for again in range(2):  # from upstream, then from memory
        answer = opened.get(FILE, headers=page())
        assert answer.status_code == 200, again
        assert answer.headers[ALLOW] == PAGES
        assert answer.headers["Vary"] == "Origin"
        assert "Access-Control-Allow-Credentials" not in answer.headers
        exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
        assert {"X-Repo-Commit", "ETag", "Link", "Content-Range", "X-Error-Code"} < {*exposed}
        # Whatever origin may read: nothing of it runs.
        assert answer.headers["Content-Security-Policy"].startswith("sandbox")
    known = {"If-None-Match": answer.headers["ETag"]}
    unchanged = opened.get(FILE, headers=page(**known))
    assert (unchanged.status_code, unchanged.headers[ALLOW]) == (304, PAGES)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/bert-base-uncased/resolve/main/no.txt", 404),
        ("/org/private/resolve/main/config.json", 401),
        ("/org/large/resolve/main/model.bin", 206),
        ("/api/models/bert-base-uncased/tree/main", 200),
    ],
)
def test_every_kind_of_answer_can_be_read_by_it(
    opened: RunningCache, path: str, status: int
) -> None:
    answer = opened.get(path, headers=page(Range="bytes=0-9"))
    assert (answer.status_code, answer.headers[ALLOW]) == (status, PAGES)


def test_a_browser_may_ask_beforehand(opened: RunningCache) -> None:
    wanted = {**PREFLIGHT, "Access-Control-Request-Headers": "authorization,range"}
    answer = opened.request("OPTIONS", FILE, headers=page(**wanted))
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers[ALLOW] == PAGES
    assert {"GET", "HEAD"} < {*answer.headers["Access-Control-Allow-Methods"].split(", ")}
    allowed = answer.headers["Access-Control-Allow-Headers"].lower().split(", ")
    assert {"authorization", "range", "if-none-match", "content-type"} < {*allowed}
    assert "access-control-allow-credentials" not in map(str.lower, answer.headers)


def test_a_question_by_post_is_a_read(opened: RunningCache) -> None:
    path = "/api/models/org/large/paths-info/main"
    answer = opened.request("POST", path, headers=page(), json={"paths": ["model.bin"]})
    assert answer.status_code == 200
    assert [row["path"] for row in answer.json()] == ["model.bin"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/repos/create"),
        ("POST", "/api/models/alice/paths-info/commit/main"),
        ("DELETE", "/api/repos/delete"),
        ("PUT", "/api/models/org/large/settings"),
        ("POST", "/org/large.git/info/lfs/objects/batch"),
        ("POST", "/api/validate-yaml"),
        ("GET", "/api/models/org/large/xet-write-token/main"),
    ],
)
def test_it_changes_nothing_even_with_a_token(
    opened: RunningCache, hub: FakeHub, method: str, path: str
) -> None:
    hub.counters.reset()
    headers = page(Authorization="Bearer hf_alice")
    answer = opened.request(method, path, headers=headers, trusted=True, json={"name": "x"})
    assert answer.status_code == 403
    assert hub.counters.requests == []


def test_the_rest_api_stays_closed_to_it(opened: RunningCache) -> None:
    for path in ("hf-cache/v1/status", "pulp/api/v3/status/"):
        url = f"{opened.host}/{path}"
        answer = requests.get(url, headers=page(), auth=("admin", "password"), timeout=60)
        assert answer.status_code == 403
        assert cors_headers(answer) == []


@pytest.mark.parametrize(
    "origin", ["https://evil.example.org", "http://pages.example.org", f"{PAGES}.evil.org", "null"]
)
def test_other_origins_stay_out(opened: RunningCache, origin: str) -> None:
    answer = opened.get(FILE, headers=page(origin))
    assert (answer.status_code, cors_headers(answer)) == (403, [])
    # A shared cache in between must not give one page's answer to another.
    assert answer.headers["Vary"] == "Origin"


def test_a_page_that_hides_its_origin_stays_out(for_all: RunningCache) -> None:
    silent = for_all.get(
        FILE, headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    )
    assert silent.status_code == 403


def test_all_origins_may_read_without_credentials(for_all: RunningCache, hub: FakeHub) -> None:
    answer = for_all.get(FILE, headers=page("https://anybody.example.org"))
    assert (answer.status_code, answer.headers[ALLOW]) == (200, "*")
    assert "Access-Control-Allow-Credentials" not in answer.headers
    private = for_all.get("/org/private/resolve/main/config.json", headers=page())
    assert private.status_code == 401
    hub.counters.reset()
    changed = for_all.request("POST", "/api/repos/create", headers=page(), json={"name": "x"})
    assert (changed.status_code, hub.counters.requests) == (403, [])
