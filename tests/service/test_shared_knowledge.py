"""What one process learns, and the others on the same directories must act on at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyter_hf_cache.errors import StorageError, UpstreamAnswer
from jupyter_hf_cache.service.changes import Changes
from jupyter_hf_cache.service.claims import Claims
from jupyter_hf_cache.storage.generations import Generations
from jupyter_hf_cache.storage.records import Claim, RepoRef, Verdict
from jupyter_hf_cache.storage.state import StateTable
from jupyter_hf_cache.upstream.policy import Lifetimes
from jupyter_hf_cache.upstream.rights import BAD_TOKEN, Rights, Subject, decide_read_unasked

REPO = RepoRef("models", "org/private")
WHO = ("remote@origin", "identity", REPO)

Make = Callable[[Callable[..., Any]], Any]


@pytest.fixture
def in_a_process(tmp_path: Path) -> Iterator[Make]:
    """Makes a part of the service as another process would: with its own table and counters."""
    tables: list[StateTable] = []

    def make(part: Callable[..., Any]) -> Any:
        tables.append(StateTable(tmp_path / "table"))
        return part(tables[-1], Generations(tmp_path / "generations"))

    yield make
    for table in tables:
        table.close()


def verdict(*, content: bool = True, public: bool = False, age: float = 0.0) -> Verdict:
    return Verdict(content=content, public=public, checked=time.time() - age)


@pytest.fixture
def rights(in_a_process: Make) -> tuple[Rights, Rights]:
    """Two processes that know of a right."""
    here, there = in_a_process(Rights), in_a_process(Rights)
    for subject in Subject:
        here.grant(*WHO, verdict(), subject)
        assert there.verdict(*WHO, subject) is not None
    return here, there


def test_a_right_that_is_taken_back_ends_everywhere(rights: tuple[Rights, Rights]) -> None:
    here, there = rights
    there.revoke(*WHO)
    assert [here.verdict(*WHO, subject) for subject in Subject] == [None] * len(Subject)


def test_a_right_that_a_disk_keeps_is_taken_back_all_the_same(
    rights: tuple[Rights, Rights], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _ = rights

    def refuse(*_: object) -> None:
        raise StorageError("full")

    monkeypatch.setattr(StateTable, "delete", refuse)
    with pytest.raises(StorageError):
        here.revoke(*WHO, Subject.FILES)
    assert here.verdict(*WHO) is None


def test_a_repo_that_becomes_gated_is_closed_everywhere(rights: tuple[Rights, Rights]) -> None:
    here, there = rights
    there.note_refusal(*WHO, UpstreamAnswer(403, "Access is restricted.", code="GatedRepo"))
    for subject in (Subject.FILES, Subject.LISTS, Subject.HISTORY):
        assert here.verdict(*WHO, subject) is None
    page = here.verdict(*WHO, Subject.PAGES)
    assert page is not None
    assert not page.content


def test_a_repo_that_becomes_private_is_not_public_anywhere(in_a_process: Make) -> None:
    here, there = in_a_process(Rights), in_a_process(Rights)
    here.grant(*WHO, verdict(public=True))
    assert there.verdict(*WHO).public
    here.grant(*WHO, verdict(public=False))
    assert not there.verdict(*WHO).public


def test_changed_credentials_end_all_rights_everywhere(rights: tuple[Rights, Rights]) -> None:
    here, there = rights
    there.forget_all(WHO[0])
    assert here.verdict(*WHO) is None


def test_a_right_may_come_back(rights: tuple[Rights, Rights]) -> None:
    here, there = rights
    there.revoke(*WHO)
    assert here.verdict(*WHO) is None
    there.grant(*WHO, verdict())
    assert here.verdict(*WHO) is not None


def test_refusals_of_who_never_had_the_right_announce_nothing(
    in_a_process: Make, tmp_path: Path
) -> None:
    here = in_a_process(Rights)
    before = Generations(tmp_path / "generations").values()
    here.note_refusal(*WHO, UpstreamAnswer(404, "Repository not found", code="RepoNotFound"))
    here.note_refusal(*WHO, UpstreamAnswer(401, BAD_TOKEN))
    here.grant(*WHO, verdict())
    assert Generations(tmp_path / "generations").values() == before


def test_a_token_that_is_not_known_any_more_ends_all_its_rights(
    rights: tuple[Rights, Rights],
) -> None:
    here, there = rights
    scope, identity, repo = WHO
    others = RepoRef("models", "org/other"), RepoRef("datasets", "org/third")
    for other in others:
        here.grant(scope, identity, other, verdict())
        here.grant(scope, "somebody-else", other, verdict())
        assert there.verdict(scope, identity, other) is not None
    there.note_refusal(scope, identity, repo, UpstreamAnswer(401, BAD_TOKEN))
    for other in others:
        assert here.verdict(scope, identity, other) is None
        assert here.verdict(scope, "somebody-else", other) is not None


def test_a_portal_that_asks_for_a_login_ends_one_right_at_most(
    rights: tuple[Rights, Rights],
) -> None:
    here, _ = rights
    scope, identity, repo = WHO
    here.grant(scope, identity, RepoRef("models", "org/other"), verdict())
    here.note_refusal(scope, identity, repo, UpstreamAnswer(401, "The upstream answered 401."))
    assert here.verdict(scope, identity, RepoRef("models", "org/other")) is not None


def test_a_right_is_no_longer_public_when_nobody_said_so_again(in_a_process: Make) -> None:
    rights = in_a_process(Rights)
    lifetimes, now = Lifetimes(access=60, access_grace=3600), time.time()
    rights.grant(*WHO, Verdict(content=True, public=True, checked=now))
    for later, public in ((30, True), (60, True), (120, False)):
        rights.grant_files(*WHO, now + later, public=False)
        found = rights.verdict(*WHO)
        held = decide_read_unasked(found, lifetimes, now + 9000, single_user=False, owner=False)
        assert held is public


def test_a_change_is_seen_everywhere(in_a_process: Make) -> None:
    here, there = in_a_process(Changes), in_a_process(Changes)
    assert there.last("scope", REPO) == 0.0
    before = time.time()
    here.note("scope", REPO)
    assert before <= there.last("scope", REPO) <= time.time()
    assert there.last("scope", RepoRef("models", "org/other")) == 0.0
    here.note("scope", None)
    assert there.last("scope", RepoRef("models", "org/other")) >= before
    assert there.last("other scope", REPO) == 0.0


def test_a_change_is_known_after_a_restart(in_a_process: Make) -> None:
    in_a_process(Changes).note("scope", REPO)
    assert in_a_process(Changes).last("scope", REPO) > 0.0


def test_the_oldest_changes_are_dropped(
    in_a_process: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jupyter_hf_cache.service.changes._MOST", 3)
    monkeypatch.setattr("jupyter_hf_cache.service.changes._PRUNE_EVERY", 1)
    changes = in_a_process(Changes)
    for number in range(5):
        changes.note("scope", RepoRef("models", f"org/{number}"))
    known = [changes.last("scope", RepoRef("models", f"org/{number}")) > 0 for number in range(5)]
    assert known == [False, False, True, True, True]


def test_a_claim_that_was_forgotten_elsewhere_is_written_again(in_a_process: Make) -> None:
    here, there = in_a_process(Claims), in_a_process(Claims)
    claim = Claim(commit="c" * 40, etag="e" * 40, size=1)
    here.put("origin", REPO, "file", claim)
    there.forget("origin", REPO)
    assert here.get("origin", REPO, "c" * 40, "file") is None
    here.put("origin", REPO, "file", claim)
    assert [file for file, _ in there.of_repo("origin", REPO)] == ["file"]
