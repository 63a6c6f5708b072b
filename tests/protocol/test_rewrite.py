"""Bodies and URLs of the upstream, made fit for a client of this cache."""

from __future__ import annotations

from typing import Any

import pytest

from jupyter_hf_cache.protocol.rewrite import (
    lfs_batch_downloads,
    rewrite_actions,
    rewrite_link,
    rewrite_location,
    strip_xet,
)

HUB = "https://huggingface.co"
BASE = "http://host/user/a%40b/pulp/content/~cap/hf"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"xetHash": "h", "xetEnabled": True, "size": 1}, {"size": 1}),
        (
            [{"path": "a", "xetHash": "h", "lfs": {"oid": "o"}}],
            [{"path": "a", "lfs": {"oid": "o"}}],
        ),
        (
            {"a": [{"b": {"xetAny": {"c": 1}, "d": [1, "xetHash"]}}]},
            {"a": [{"b": {"d": [1, "xetHash"]}}]},
        ),
        ({"XetHash": 1, "alexet": 2}, {"alexet": 2}),
        ([], []),
        ({}, {}),
        ("xet", "xet"),
        (None, None),
        (3, 3),
    ],
)
def test_no_trace_of_xet_is_left_in_json(body: Any, expected: Any) -> None:
    assert strip_xet(body) == expected


def test_the_body_itself_is_left_alone() -> None:
    body = {"b": [{"xetHash": 1}], "a": 1}

    assert list(strip_xet(body)) == ["b", "a"]
    assert body == {"b": [{"xetHash": 1}], "a": 1}


def test_depth_is_no_limit() -> None:
    body: Any = {"xetHash": 1}
    for _ in range(100_000):
        body = [body]
    stripped = strip_xet(body)

    depth = 0
    while isinstance(stripped, list):
        stripped, depth = stripped[0], depth + 1
    assert (depth, stripped) == (100_000, {})
    while isinstance(body, list):  # take it apart: freeing it at once would recurse
        body = body.pop()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            f'<{HUB}/api/models?cursor=a%3D>; rel="next"',
            f'<{BASE}/api/models?cursor=a%3D>; rel="next"',
        ),
        ('</api/models?cursor=a,b>; rel="next"', f'<{BASE}/api/models?cursor=a,b>; rel="next"'),
        (f"<{HUB}/api/x>;rel=next", f'<{BASE}/api/x>; rel="next"'),
        (f'<{HUB}:443/api/x>; rel="next"', f'<{BASE}/api/x>; rel="next"'),
        ('<http://HuggingFace.co/api/x>; REL="Next"', f'<{BASE}/api/x>; rel="next"'),
        (f'<{HUB}/a>; title="x, y; z"; rel="next"', f'<{BASE}/a>; rel="next"'),
        (
            f'<{HUB}/a>; rel="prev", <{HUB}/b>; rel="next", <{HUB}/c>; rel="last first"',
            f'<{BASE}/a>; rel="prev", <{BASE}/b>; rel="next", <{BASE}/c>; rel="last", '
            f'<{BASE}/c>; rel="first"',
        ),
        (
            f'<{HUB}/t>; rel="xet-auth", <{HUB}/b>; rel="next"',
            f'<{BASE}/b>; rel="next"',
        ),
        (f'<{HUB}/t>; rel="xet-auth"', None),
        ('<https://evil.example/api?c=1>; rel="next"', None),
        ('<//evil.example/api>; rel="next"', None),
        (f'<{HUB}:8443/api/x>; rel="next"', None),
        (f'<{HUB}.evil.example/api/x>; rel="next"', None),
        ('<https://huggingface.co@evil.example/api/x>; rel="next"', None),
        (f'<{HUB}/api/../../../lab/x>; rel="next"', None),
        ('</api/%2e%2e/%2e%2e/x>; rel="next"', None),
        ('</\\evil.example/x>; rel="next"', None),
        ('<javascript:alert(1)>; rel="next"', None),
        ('<?cursor=1>; rel="next"', None),
        ('<https://[bad/x>; rel="next"', None),
        (f'<{HUB}/x>; rel="preload"', None),
        (f"<{HUB}/x>", None),
        ("nonsense", None),
        ("", None),
    ],
)
def test_page_links_lead_below_this_cache(value: str, expected: str | None) -> None:
    assert rewrite_link(value, HUB, BASE) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://mirror.example/hf/api/x?y=1", f"{BASE}/api/x?y=1"),
        ("/hf/api/x", f"{BASE}/api/x"),
        ("/api/x", f"{BASE}/api/x"),
        ("https://mirror.example/other/api/x", None),
        ("https://mirror.example/hfx/api", None),
    ],
)
def test_an_upstream_with_a_base_path_is_taken_off_whole(url: str, expected: str | None) -> None:
    assert rewrite_location(url, "https://mirror.example/hf", BASE + "/") == expected


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        (
            "/api/resolve-cache/models/o/n/c/x?%2Fo=&etag=%22e%22",
            f"{BASE}/api/resolve-cache/models/o/n/c/x?%2Fo=&etag=%22e%22",
        ),
        (f"{HUB}/new/name#frag", f"{BASE}/new/name"),
        ("https://cdn.example/x?Signature=s", None),
    ],
)
def test_redirects_stay_below_this_cache_or_are_none(location: str, expected: str | None) -> None:
    assert rewrite_location(location, HUB, BASE) == expected


def test_signed_urls_of_an_lfs_batch_stay_as_they_are() -> None:
    signed = "https://s3.example/x?X-Amz-Signature=s"
    body = {
        "objects": [
            {
                "oid": "o",
                "actions": {
                    "upload": {"href": signed, "header": {"a": "b"}},
                    "verify": {"href": f"{HUB}/api/complete?x=1"},
                },
            },
            {"oid": "p", "error": {"code": 404}},
            "odd",
        ]
    }
    rewritten = rewrite_actions(body, HUB, BASE)

    assert rewritten["objects"][0]["actions"] == {
        "upload": {"href": signed, "header": {"a": "b"}},
        "verify": {"href": f"{BASE}/api/complete?x=1"},
    }
    assert rewritten["objects"][1:] == body["objects"][1:]


@pytest.mark.parametrize("body", [None, [], [{"url": HUB}], "x", {"url": 3}, {"url": "/o/n"}])
def test_other_json_is_left_alone(body: Any) -> None:
    assert rewrite_actions(body, HUB, BASE) == body


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"operation": "download", "objects": []}', True),
        (b'{"operation": "upload"}', False),
        (b"{}", False),
        (b"[]", False),
        (b"\xff", False),
        (b"[" * 100_000, False),
    ],
)
def test_only_a_batch_that_says_so_downloads(body: bytes, expected: bool) -> None:
    assert lfs_batch_downloads(body) is expected
