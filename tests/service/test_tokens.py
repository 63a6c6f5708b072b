"""The token a remote reads with: it goes in, and never comes out again."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_hub import FakeHub
from serving import RunningCache

from jupyter_hf_cache.errors import BadRequest, NotFound

TOKEN = "hf_alice"  # the fake Hub's
SECRET = "hf_NobodyMaySeeThisOne1234567890"


def everything_on_disk(root: Path) -> bytes:
    return b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file())


class TestService:
    def test_it_is_set_tested_and_forgotten(self, cache: RunningCache) -> None:
        tokens = cache.service.tokens
        assert tokens.all() == [("default", False)]
        assert tokens.test("default").error == "No token is set."
        tokens.set("default", f"  {TOKEN}\n")
        assert tokens.all() == [("default", True)]
        tested = tokens.test("default")
        assert (tested.ok, tested.name, tested.error) == (True, "alice", None)
        tokens.forget("default")
        assert tokens.all() == [("default", False)]
        tokens.forget("default")

    def test_a_token_that_the_hub_refuses_is_told_so(self, cache: RunningCache) -> None:
        cache.service.tokens.set("default", SECRET)
        tested = cache.service.tokens.test("default")
        assert not tested.ok and tested.name is None
        assert tested.error and SECRET not in tested.error

    def test_a_hub_that_is_away_is_told_so(self, cache: RunningCache, hub: FakeHub) -> None:
        cache.service.tokens.set("default", SECRET)
        hub.pause()
        tested = cache.service.tokens.test("default")
        assert not tested.ok
        assert tested.error and SECRET not in tested.error

    def test_something_that_is_no_hub_is_told_so(self, cache: RunningCache, hub: FakeHub) -> None:
        cache.service.tokens.set("default", TOKEN)
        hub.fault("html", "whoami")
        tested = cache.service.tokens.test("default")
        assert (tested.ok, tested.error) == (False, "The upstream's answer is not that of a Hub.")

    @pytest.mark.parametrize("wrong", ["", "  ", "a b", "hf_ä", "hf_\x00", "a\nb", "x" * 4097])
    def test_what_is_no_token_is_refused(self, cache: RunningCache, wrong: str) -> None:
        with pytest.raises(BadRequest):
            cache.service.tokens.set("default", wrong)
        assert cache.service.tokens.all() == [("default", False)]

    def test_unknown_remotes_are_not_found(self, cache: RunningCache) -> None:
        for call in (cache.service.tokens.forget, cache.service.tokens.test):
            with pytest.raises(NotFound):
                call("nobody")
        with pytest.raises(NotFound):
            cache.service.tokens.set("nobody", TOKEN)

    def test_it_opens_what_only_its_owner_may_read(self, cache: RunningCache) -> None:
        url = "/org/private/resolve/main/config.json"
        assert cache.get(url, trusted=True).status_code in (401, 404)
        cache.service.tokens.set("default", TOKEN)
        assert cache.get(url, trusted=True).status_code == 200
        assert cache.get(url).status_code in (401, 404), "and nobody else gets it"
        cache.service.tokens.forget("default")
        assert cache.get(url, trusted=True).status_code in (401, 404)


def test_it_lies_nowhere_in_clear(tmp_path: Path, hub: FakeHub) -> None:
    with RunningCache(tmp_path, hub) as cache:
        cache.service.tokens.set("default", SECRET)
        cache.service.tokens.test("default")
        cache.get("/org/private/resolve/main/config.json", trusted=True)
        assert SECRET.encode() not in everything_on_disk(tmp_path)
    assert SECRET.encode() not in everything_on_disk(tmp_path)
    with RunningCache(tmp_path, hub) as again:
        assert again.service.tokens.all() == [("default", True)], "but it is kept"
        (remote,) = again.service.config.remotes()
        assert remote.hf_token == SECRET
        assert SECRET not in repr(remote)


def test_no_answer_and_no_log_line_shows_it(
    cache: RunningCache, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    answers = [
        cache.api("PUT", "tokens/default", json={"token": SECRET}),
        cache.api("GET", "tokens"),
        cache.api("POST", "tokens/default/test"),
        cache.api("GET", "status"),
        cache.api("PUT", "tokens/default", json={"token": SECRET + " x"}),
        cache.api("PUT", f"tokens/{SECRET}x", json={"token": SECRET}),
        cache.get("/org/private/resolve/main/config.json", trusted=True),
    ]
    shown = "".join(answer.text + str(answer.headers) for answer in answers[:5] + answers[6:])
    assert SECRET not in shown
    kept = [record.getMessage() + str(record.exc_text) for record in caplog.records]
    assert not [line for line in kept if SECRET in line and f"tokens/{SECRET}x" not in line]
