"""Which files are left to Xet, and how that is said."""

from __future__ import annotations

import pytest

from jupyter_hf_cache.protocol.headers import answer_headers, file_metadata
from jupyter_hf_cache.protocol.paths import parse
from jupyter_hf_cache.protocol.rewrite import strip_xet
from jupyter_hf_cache.protocol.xet import (
    LARGEST_OVER_HTTP,
    advertisement,
    asks_for_token,
    is_too_large,
    usable_hash,
)
from jupyter_hf_cache.storage.records import RepoRef

HASH = "0123456789abcdef" * 4
HUGE = LARGEST_OVER_HTTP + 1


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (LARGEST_OVER_HTTP, False),
        (HUGE, True),
        (0, False),
        (None, False),
        ("60000000000", False),
        (6e10, False),
        (True, False),
    ],
)
def test_only_a_size_above_the_limit_is_too_large(size: object, expected: bool) -> None:
    assert LARGEST_OVER_HTTP == 50_000_000_000
    assert is_too_large(size) is expected


@pytest.mark.parametrize("value", ["*" * 64, HASH[:-1], HASH + "0", HASH + "\n", "", None, 64, []])
def test_a_hash_that_no_client_can_use_is_none(value: object) -> None:
    assert usable_hash(value) is None
    assert usable_hash(HASH) == HASH


def test_listings_keep_the_hash_of_a_file_too_large_alone() -> None:
    rows = [
        {"path": "small", "size": LARGEST_OVER_HTTP, "xetHash": HASH},
        {"path": "huge", "size": HUGE, "xetHash": HASH, "lfs": {"size": HUGE}},
        {"path": "masked", "size": HUGE, "xetHash": "*" * 64},
        {"path": "unknown", "xetHash": HASH},
        {"path": "other", "size": HUGE, "xetEnabled": True},
    ]
    kept = strip_xet({"siblings": rows}, spare_large=True)["siblings"]
    assert [row["path"] for row in kept if "xetHash" in row] == ["huge"]
    assert "xetEnabled" not in kept[-1]
    assert all("xetHash" not in row for row in strip_xet(rows))


@pytest.mark.parametrize(("size", "expected"), [(HUGE, HASH), (LARGEST_OVER_HTTP, None)])
def test_an_answer_about_a_file_tells_the_hash_of_one_too_large(
    size: int, expected: str | None
) -> None:
    headers = {"X-Linked-Size": str(size), "X-Linked-ETag": f'"{HASH}"', "X-Xet-Hash": HASH}
    assert file_metadata(302, headers).xet_hash == expected
    assert file_metadata(404, headers).xet_hash is None
    assert file_metadata(302, {**headers, "X-Xet-Hash": "*" * 64}).xet_hash is None


def test_the_advertisement_leads_to_the_token_route_of_this_cache() -> None:
    headers = advertisement(HASH, RepoRef("datasets", "o/n"), "c" * 40, "http://h/hf/")
    route = f"http://h/hf/api/datasets/o/n/xet-read-token/{'c' * 40}"
    assert headers == {
        "X-Xet-Hash": HASH,
        "X-Xet-Refresh-Route": route,
        "Link": f'<{route}>; rel="xet-auth"',
    }
    assert asks_for_token(parse("GET", route.removeprefix("http://h/hf")))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/models/o/n/xet-read-token/main"),
        ("GET", "/api/models/o/n/xet-write-token/main"),
        ("GET", "/o/n/resolve/main/xet-read-token/main"),
        ("GET", "/api/models/o/n/tree/main/xet-read-token/x"),
        ("GET", "/o/n/xet-read-token/main"),
    ],
)
def test_nothing_else_asks_for_a_token(method: str, path: str) -> None:
    assert not asks_for_token(parse(method, path))


def test_one_segment_and_quoted_revisions_ask_for_a_token() -> None:
    assert asks_for_token(parse("GET", "/api/models/gpt2/xet-read-token/main"))
    assert asks_for_token(parse("GET", "/api/models/o/n/xet-read-token/refs%2Fpr%2F1"))


def test_headers_of_a_token_pass_where_one_was_asked_for() -> None:
    answer = {"X-Xet-Access-Token": "t", "X-Xet-Cas-Url": "https://c"}
    assert answer_headers(answer) == {}
    assert answer_headers(answer, keep_xet=True) == answer
