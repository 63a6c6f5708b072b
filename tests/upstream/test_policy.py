"""Every case of the decisions about a read."""

from __future__ import annotations

import pytest

from jupyter_hf_cache.storage.records import Claim, Revision, Verdict
from jupyter_hf_cache.upstream.policy import (
    Action,
    Known,
    Lifetimes,
    is_fresh,
    plan,
    plan_without_upstream,
)
from jupyter_hf_cache.upstream.rights import decide_read, decide_read_unasked

NOW = 1_000_000.0
LIFETIMES = Lifetimes(revision=60, metadata=60, negative=60, access=30, access_grace=3600)
CLAIM = Claim(commit="a" * 40, etag="b" * 40, size=1)
YOUNG, OLD, FUTURE = (Revision("a" * 40, NOW - age) for age in (59, 60, -1))
NAMED, LONG_AGO = (Revision("a" * 40, NOW - age) for age in (29, 30))


@pytest.mark.parametrize(
    ("pinned", "revision", "claim", "kept", "may_read", "want_body", "expected"),
    [
        (True, NAMED, CLAIM, True, True, True, Action.SERVE),
        (True, NAMED, CLAIM, False, True, True, Action.FETCH),
        (True, NAMED, CLAIM, False, True, False, Action.SERVE),
        (True, NAMED, CLAIM, True, False, True, Action.REVALIDATE),
        (True, NAMED, None, False, True, True, Action.REVALIDATE),
        (True, LONG_AGO, CLAIM, True, True, True, Action.REVALIDATE),
        (True, None, CLAIM, True, True, True, Action.REVALIDATE),
        (False, YOUNG, CLAIM, True, True, True, Action.SERVE),
        (False, YOUNG, CLAIM, False, True, True, Action.FETCH),
        (False, YOUNG, CLAIM, True, False, True, Action.REVALIDATE),
        (False, OLD, CLAIM, True, True, True, Action.REVALIDATE),
        (False, FUTURE, CLAIM, True, True, True, Action.REVALIDATE),
        (False, None, None, False, True, True, Action.REVALIDATE),
    ],
)
def test_plan(
    pinned: bool,
    revision: Revision | None,
    claim: Claim | None,
    kept: bool,
    may_read: bool,
    want_body: bool,
    expected: Action,
) -> None:
    known = Known(pinned=pinned, revision=revision, claim=claim, kept=kept)
    assert plan(known, LIFETIMES, NOW, may_read=may_read, want_body=want_body) is expected


@pytest.mark.parametrize(
    ("pinned", "revision", "claim", "kept", "may_read", "expected"),
    [
        (True, None, CLAIM, True, True, Action.SERVE),
        (True, None, CLAIM, True, False, Action.REFUSE),
        (True, None, CLAIM, False, True, Action.REFUSE),
        (True, None, None, False, True, Action.REFUSE),
        (False, OLD, CLAIM, True, True, Action.SERVE),
        (False, None, CLAIM, True, True, Action.REFUSE),
    ],
)
def test_plan_without_upstream(
    pinned: bool,
    revision: Revision | None,
    claim: Claim | None,
    kept: bool,
    may_read: bool,
    expected: Action,
) -> None:
    known = Known(pinned=pinned, revision=revision, claim=claim, kept=kept)
    assert plan_without_upstream(known, may_read=may_read) is expected


def test_a_change_that_went_through_us_ends_what_was_known() -> None:
    assert is_fresh(YOUNG, 60, NOW, changed=NOW - 59.5)
    assert not is_fresh(YOUNG, 60, NOW, changed=NOW - 59)
    assert not is_fresh(YOUNG, 60, NOW, changed=NOW - 1)


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (None, False),
        (Verdict(content=True, public=False, checked=NOW - 29), True),
        (Verdict(content=True, public=False, checked=NOW - 30), False),
        (Verdict(content=True, public=True, checked=NOW - 30), False),
        (Verdict(content=True, public=True, checked=NOW + 1), False),
        (Verdict(content=False, public=True, checked=NOW), False),
    ],
)
def test_decide_read(verdict: Verdict | None, expected: bool) -> None:
    assert decide_read(verdict, LIFETIMES, NOW) is expected


@pytest.mark.parametrize(
    ("content", "public", "age", "single_user", "owner", "expected"),
    [
        (True, True, 1e9, False, False, True),
        (True, False, 3600, False, False, True),
        (True, False, 3601, False, False, False),
        (True, False, 3601, True, False, False),
        (True, False, 3601, False, True, False),
        (True, False, 1e9, True, True, True),
        (False, True, 0, True, True, False),
    ],
)
def test_decide_read_unasked(
    content: bool, public: bool, age: float, single_user: bool, owner: bool, expected: bool
) -> None:
    verdict = Verdict(content=content, public=public, checked=NOW - age)
    decided = decide_read_unasked(verdict, LIFETIMES, NOW, single_user=single_user, owner=owner)
    assert decided is expected
    assert not decide_read_unasked(None, LIFETIMES, NOW, single_user=single_user, owner=owner)
