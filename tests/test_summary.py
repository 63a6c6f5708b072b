"""What is said about the cache, in text and in HTML."""

from __future__ import annotations

from typing import Any

import pytest

from jupyter_hf_cache import summary
from jupyter_hf_cache.api_records import Freed, Repo, RepoPage, Status, TokenState, TokenTest

HOSTILE = '<script>alert("1")</script>\x1b[2J'


def status(**more: Any) -> Status:
    facts = {
        "usage": {"bytes": 128_000_000_000, "limit_bytes": 300_000_000_000, "repos": 41},
        "upstreams": [{"remote": "default", "state": "reachable"}],
        **more,
    }
    return Status.read(facts)


def hostile_repo() -> Repo:
    return Repo.read(
        {
            "type": "models",
            "id": HOSTILE,
            "last_used": HOSTILE,
            "revisions": [{"revision": HOSTILE, "commit": HOSTILE, "files": 1}],
            "files": [{"path": HOSTILE, "size_bytes": 1}],
        }
    )


def test_the_status_line() -> None:
    told = summary.status_text(
        status(
            fills={
                "running": 2,
                "bytes_done": 1_600_000_000,
                "bytes_total": 2_500_000_000,
                "speed_bytes_per_second": 38e6,
            },
            today={
                "hits": 96,
                "misses": 4,
                "bytes_from_cache": 61_000_000_000,
                "calls_saved": 1204,
            },
        )
    )
    assert told == (
        "128 GB in 41 repos · 2 running (1.6 of 2.5 GB, 38 MB/s) · "
        "today 96 % from cache, 61 GB and 1,204 calls saved"
    )


def test_a_quiet_cache_says_only_what_it_keeps() -> None:
    assert summary.status_text(status()) == "128 GB in 41 repos"
    assert "1 running" in summary.status_text(status(fills={"running": 1}))


def test_an_unreachable_hub_is_said_with_its_reason() -> None:
    down = [
        {"remote": "default", "state": "unreachable", "reason": "TLS: issuer is not trusted"},
        {"remote": "mirror", "state": "unreachable", "reason": None},
    ]
    told = summary.status_text(status(upstreams=down))
    assert "Hub not reachable (TLS: issuer is not trusted); remote mirror not reachable" in told
    assert "what is cached keeps working" in told


@pytest.mark.parametrize(
    ("upstreams", "expected"),
    [
        ([], "Hub not asked yet"),
        ([{"remote": "default", "state": "unknown"}], "Hub not asked yet"),
        ([{"remote": "default", "state": "reachable"}], "Hub reachable"),
    ],
)
def test_upstream_states(upstreams: list[dict[str, str]], expected: str) -> None:
    assert summary.upstream_text(status(upstreams=upstreams)) == expected


def test_the_panel_as_text() -> None:
    told = summary.panel_text("http://127.0.0.1:8888/", status(fills={"running": 2}))
    assert told == (
        "Hugging Face cache at http://127.0.0.1:8888 — 128 GB in 41 repos (300 GB budget), "
        "2 downloads running, Hub reachable"
    )


def test_problems_are_told() -> None:
    told = status(problems=["The disk is full.", HOSTILE])
    assert "The disk is full." in summary.status_text(told)
    assert "\x1b" not in summary.status_text(told)
    assert "<script" not in summary.status_html(told)


def test_a_list_has_a_row_for_each_revision() -> None:
    repo = Repo.read(
        {
            "id": "o/n",
            "type": "datasets",
            "revisions": [
                {"revision": "main", "commit": "a" * 40, "files": 3, "size_bytes": 570},
                {"revision": None, "commit": "b" * 40, "files": 1, "size_bytes": 1000},
            ],
        }
    )
    bare = Repo.read({"id": "gpt2", "type": "models", "size_bytes": 5, "files": 1})
    lines = [" ".join(x.split()) for x in summary.list_text([repo, bare]).splitlines()]
    assert lines[0] == "REPO TYPE REVISION COMMIT FILES SIZE LAST USED"
    assert lines[1] == "o/n datasets main aaaaaaa 3 570 B never"
    assert lines[2] == "o/n datasets - bbbbbbb 1 1 kB never"
    assert lines[3] == "gpt2 models - - 1 5 B never"


def test_names_with_markup_are_escaped_everywhere() -> None:
    repo = hostile_repo()
    page = RepoPage(500, (repo,))
    for html in (summary.list_html(page), summary.repo_html(repo)):
        assert "<script" not in html
        assert "&lt;script&gt;" in html
    assert "\x1b" not in summary.list_text([repo])
    assert "\x1b" not in summary.tokens_text([TokenState(HOSTILE, True)])
    assert "\x1b" not in summary.token_test_text("r", TokenTest(False, None, None, HOSTILE))
    down = status(upstreams=[{"remote": HOSTILE, "state": "unreachable", "reason": HOSTILE}])
    assert "<script" not in summary.status_html(down)


def test_a_shortened_list_says_so() -> None:
    assert "499 more repos not shown" in summary.list_html(RepoPage(500, (hostile_repo(),)))
    many = Repo.read({"id": "o/n", "files": [{"path": str(i)} for i in range(250)]})
    assert "50 more files not shown" in summary.repo_html(many)


def test_marks_of_a_repo() -> None:
    html = summary.repo_html(Repo.read({"id": "o/n", "private": True, "gated": True}))
    assert "private · gated" in html


def test_what_a_deletion_frees() -> None:
    freed = Freed(438_000_000, 2_000_000, 5)
    assert summary.freed_text(freed) == (
        "Frees 438 MB (5 files). 2 MB stay: other repos use the same bytes."
    )
    assert summary.freed_text(Freed(1, 0, 1), done=True) == "Freed 1 B (1 file)."
    assert summary.freed_text(Freed(0, 0, 1, 1), done=True) == (
        "Freed 0 B (1 file). 1 B more when those who read them now have ended."
    )


def test_tokens() -> None:
    told = summary.tokens_text([TokenState("default", True), TokenState("x", False)])
    assert told == "default: a token is set\nx: no token"
    good = TokenTest(True, "alice", "read", None)
    assert summary.token_test_text("default", good) == "The token of default works: alice · read"


def test_nothing_found_has_a_next_step() -> None:
    assert "from_pretrained" in summary.nothing_found("")
    assert "'bert'" in summary.nothing_found("bert")
