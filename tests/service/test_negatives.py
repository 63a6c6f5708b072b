"""404 answers, kept for a moment."""

from __future__ import annotations

import time

from jupyter_hf_cache.errors import UpstreamAnswer
from jupyter_hf_cache.service.negatives import Negatives

MISSING = UpstreamAnswer(
    404, "No such repo.", code="RepoNotFound", headers={"X-A": "1"}, body=b"no"
)


def test_a_refusal_is_given_again_as_it_was() -> None:
    negatives = Negatives()
    negatives.note("key", MISSING, time.time())
    again = negatives.find("key", 60.0)
    assert again is not None
    assert again is not MISSING
    assert (again.status, again.message, again.code) == (404, "No such repo.", "RepoNotFound")
    assert (again.headers, again.body) == ({"X-A": "1"}, b"no")


def test_other_refusals_are_not_kept() -> None:
    negatives = Negatives()
    for status in (401, 403, 429, 500):
        negatives.note("key", UpstreamAnswer(status, "No."), time.time())
    assert negatives.find("key", 60.0) is None


def test_it_ends_after_its_time() -> None:
    negatives = Negatives()
    negatives.note("key", MISSING, time.time() - 61)
    assert negatives.find("key", 60.0) is None


def test_a_change_that_overtook_the_answer_ends_it() -> None:
    negatives = Negatives()
    asked = time.time()
    negatives.note("key", MISSING, asked)
    assert negatives.find("key", 60.0, changed=asked - 1) is not None
    assert negatives.find("key", 60.0, changed=asked + 0.001) is None
