"""Signed URLs are remembered for a short time, and for one identity."""

from __future__ import annotations

import pytest

from jupyter_hf_cache.upstream.links import LONGEST_SECONDS, Links, expiry

KEY = ("me", "/org/m/resolve/c/file")
NOW = 1_700_000_000.0


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock(100.0)


@pytest.fixture
def links(clock: Clock) -> Links:
    return Links(monotonic=clock, now=lambda: NOW + clock.now - 100.0)


def test_it_is_for_one_identity_and_file(links: Links) -> None:
    links.put(KEY, "https://cdn/x")
    assert links.get(KEY) == "https://cdn/x"
    assert links.get(("you", KEY[1])) is None
    assert links.get(("me", "/org/m/resolve/c/other")) is None


def test_it_is_forgotten_after_a_while(links: Links, clock: Clock) -> None:
    links.put(KEY, "https://cdn/x")
    clock.now += LONGEST_SECONDS - 1
    assert links.get(KEY)
    clock.now += 2
    assert links.get(KEY) is None


def test_it_is_not_used_to_its_last_second(links: Links, clock: Clock) -> None:
    links.put(KEY, f"https://cdn/x?Expires={int(NOW + 30)}&Signature=s")
    assert links.get(KEY)
    clock.now += 25
    assert links.get(KEY) is None


def test_one_that_is_over_is_not_kept(links: Links) -> None:
    links.put(KEY, f"https://cdn/x?Expires={int(NOW - 5)}")
    assert links.get(KEY) is None


def test_forgetting_one_spares_a_newer_one(links: Links) -> None:
    links.put(KEY, "https://cdn/old")
    links.put(KEY, "https://cdn/new")
    links.forget(KEY, "https://cdn/old")
    assert links.get(KEY) == "https://cdn/new"
    links.forget(KEY)
    assert links.get(KEY) is None
    links.forget(KEY)


def test_they_are_bounded(links: Links) -> None:
    for number in range(2000):
        links.put(("me", f"/{number}"), "https://cdn/x")
    assert links.get(("me", "/1999"))
    assert links.get(("me", "/0")) is None


@pytest.mark.parametrize(
    ("query", "ends"),
    [
        (f"Expires={int(NOW)}&Signature=s", NOW),
        ("X-Amz-Date=20231114T221320Z&X-Amz-Expires=3600", NOW + 3600),
        ("X-Goog-Date=20231114T221320Z&X-Goog-Expires=60", NOW + 60),
        ("X-Amz-Expires=3600", None),
        ("X-Amz-Date=yesterday&X-Amz-Expires=3600", None),
        ("Expires=soon", None),
        ("Expires=" + "9" * 400, None),
        ("", None),
    ],
)
def test_when_a_url_ends(query: str, ends: float | None) -> None:
    assert expiry(f"https://cdn/x?{query}") == ends


def test_no_url_shows(links: Links) -> None:
    links.put(KEY, "https://cdn/x?Signature=secret")
    assert "secret" not in repr(links)


class TestSmallFiles:
    """Where the Hub keeps small files is known once it named the place of one."""

    COMMIT, ETAG = "c" * 40, "a" * 40
    PLACE = f"https://hub/api/resolve-cache/models/org/m/{COMMIT}/"

    def path(self, file: str, commit: str = COMMIT) -> str:
        return f"/org/m/resolve/{commit}/{file}"

    def test_neighbours_are_found(self, links: Links) -> None:
        links.put(("me", self.path("a/b.json")), self.PLACE + "a/b.json?x=&etag=1")
        url = links.small_file(("me", self.path("c%20d.txt")), self.ETAG)
        asked = f"%2Forg%2Fm%2Fresolve%2F{self.COMMIT}%2Fc%2520d.txt"
        assert url == f"{self.PLACE}c%20d.txt?{asked}=&etag=%22{self.ETAG}%22"

    def test_only_for_who_was_told_and_only_there(self, links: Links) -> None:
        links.note_place(("me", self.path("a")), self.PLACE + "a")
        assert links.small_file(("you", self.path("b")), self.ETAG) is None
        assert links.small_file(("me", self.path("b", "d" * 40)), self.ETAG) is None
        assert links.small_file(("me", "/org/other/resolve/main/b"), self.ETAG) is None
        assert links.small_file(("me", self.path("b")), "b" * 64) is None, "large files are not"

    @pytest.mark.parametrize(
        "url",
        [
            "https://cdn/other/a?Signature=x",
            f"https://hub/api/resolve-cache/models/org/m/{'d' * 40}/a",
            f"https://hub/api/resolve-cache/models/org/m/{COMMIT}/b",
            f"https://hub/files/{COMMIT}/a",
        ],
    )
    def test_other_places_teach_nothing(self, links: Links, url: str) -> None:
        links.note_place(("me", self.path("a")), url)
        assert links.small_file(("me", self.path("b")), self.ETAG) is None

    def test_it_is_forgotten_after_a_while(self, links: Links, clock: Clock) -> None:
        links.note_place(("me", self.path("a")), self.PLACE + "a")
        clock.now += LONGEST_SECONDS
        assert links.small_file(("me", self.path("b")), self.ETAG) is None

    def test_it_is_forgotten_when_it_was_wrong(self, links: Links) -> None:
        links.note_place(("me", self.path("a")), self.PLACE + "a")
        wrong = links.small_file(("me", self.path("b")), self.ETAG)
        links.forget(("me", self.path("b")), wrong)
        assert links.small_file(("me", self.path("b")), self.ETAG) is None
