from __future__ import annotations

import re

import pytest

from jupyter_hf_cache.web import capability
from jupyter_hf_cache.web.capability import Capabilities, Grant, verifier_of

KEY = b"k" * 32
OTHER = b"o" * 32


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_a_capability_is_good_until_it_expires() -> None:
    clock = Clock()
    made = Capabilities([KEY], clock)
    ticket = made.issue(60)
    assert made.verify(ticket) == Grant("", 1_000_060)
    clock.now += 59
    assert made.verify(ticket) is not None
    clock.now += 1
    assert made.verify(ticket) is None


def test_another_process_with_the_same_key_agrees() -> None:
    assert Capabilities([KEY]).verify(Capabilities([KEY]).issue(60)) is not None
    assert Capabilities([OTHER]).verify(Capabilities([KEY]).issue(60)) is None


def test_a_rotated_key_still_counts_and_the_new_one_signs() -> None:
    old = Capabilities([KEY]).issue(60)
    rotated = Capabilities([OTHER, KEY])
    assert rotated.verify(old) is not None
    new = rotated.issue(60)
    assert Capabilities([OTHER]).verify(new) is not None
    assert Capabilities([KEY]).verify(new) is None


@pytest.mark.parametrize("subject", ["", "alice", "änne@exämple.org", "a.b/c d"])
def test_it_says_for_whom_it_was_made(subject: str) -> None:
    made = Capabilities([KEY])
    ticket = made.issue(60, subject)
    assert re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+", ticket)
    grant = made.verify(ticket)
    assert grant is not None
    assert grant.subject == subject


def test_a_named_key_says_what_to_look_it_up_by() -> None:
    clock = Clock()
    made = Capabilities([KEY], clock)
    key = made.issue_key(1_000_060.9)
    assert made.verify(key) == Grant("", 1_000_060, verifier_of(key))
    assert made.issue_key(1_000_060.9) != key
    assert Capabilities([OTHER], clock).verify(key) is None
    clock.now += 60
    assert made.verify(key) is None


def test_a_named_key_may_never_expire_but_a_capability_does() -> None:
    made = Capabilities([KEY])
    key = made.issue_key(None)
    assert made.verify(key) == Grant("", 0, verifier_of(key))
    assert Capabilities([KEY], lambda: 0.0).issue(0).split(".")[2] == "0"
    assert made.verify(Capabilities([KEY], lambda: 0.0).issue(0)) is None


def test_a_key_is_not_to_be_had_from_what_verifies_it() -> None:
    key = Capabilities([KEY]).issue_key(None)
    random = key.split(".")[3]
    assert re.fullmatch(r"[0-9a-f]{64}", verifier_of(key))
    assert random not in verifier_of(key)


def test_no_changed_character_of_a_key_gets_through() -> None:
    made = Capabilities([KEY])
    key = made.issue_key(None)
    for at, character in enumerate(key[:-1]):
        changed = key[:at] + ("A" if character != "A" else "B") + key[at + 1 :]
        assert made.verify(changed) is None, at
    # The last one holds two bits that say nothing; the list of keys tells those apart.
    last = made.verify(key[:-1] + ("A" if key[-1] != "A" else "B"))
    assert last is None or last.verifier != verifier_of(key)


def test_no_changed_character_gets_through() -> None:
    made = Capabilities([KEY])
    ticket = made.issue(60, "alice")
    for at, character in enumerate(ticket[:-1]):
        changed = ticket[:at] + ("A" if character != "A" else "B") + ticket[at + 1 :]
        assert made.verify(changed) is None, at


@pytest.mark.parametrize(
    "nonsense",
    ["", ".", "....", "1", "a.b.c.d", "1.x.y.z", "~", "1." * 400, "ä.b.c.d", "1.\n.c.d", "%00"],
)
def test_nonsense_grants_nothing(nonsense: str) -> None:
    assert Capabilities([KEY]).verify(nonsense) is None


def test_an_expiry_that_is_no_number_grants_nothing() -> None:
    made = Capabilities([KEY])
    version, key_id, _, _ = made.issue(60).split(".")
    assert made.verify(f"{version}.{key_id}.zz.AAAA") is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("hf/a/b", (None, "hf/a/b")),
        ("~abc/hf/a/b", ("abc", "hf/a/b")),
        ("%7Eabc/hf/a%20b", ("abc", "hf/a%20b")),
        ("%7eabc/hf", ("abc", "hf")),
        ("~abc", ("abc", "")),
        ("~/hf", ("", "hf")),
        ("hf/~abc/x", (None, "hf/~abc/x")),
        ("", (None, "")),
    ],
)
def test_the_capability_is_split_from_the_path(path: str, expected: tuple[str | None, str]) -> None:
    assert capability.split(path) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/a%40b/pulp/content/~s3cret/hf/x?y=1", "/a%40b/pulp/content/~…/hf/x?y=1"),
        ("/pulp/content/%7Es3cret/hf", "/pulp/content/~…/hf"),
        ("http://h:1/pulp/content/~s3cret", "http://h:1/pulp/content/~…"),
        ("/x?token=s3cret&y=1", "/x?token=…&y=1"),
        ("/x?y=1&access_token=s3cret", "/x?y=1&access_token=…"),
        ("/x?_xsrf=s3cret", "/x?_xsrf=…"),
        ("/pulp/content/hf/~user/x", "/pulp/content/hf/~user/x"),
    ],
)
def test_logs_show_no_secret(text: str, expected: str) -> None:
    assert capability.redact(text) == expected


def test_capabilities_need_a_key() -> None:
    with pytest.raises(ValueError, match="key"):
        Capabilities([])


def test_one_that_was_good_a_moment_ago_expires_all_the_same() -> None:
    now = 1000.0
    capabilities = Capabilities([b"k" * 32], clock=lambda: now)
    issued = capabilities.issue(10.0, "alice")
    assert capabilities.verify(issued) == capabilities.verify(issued) == Grant("alice", 1010)
    now = 1010.0
    assert capabilities.verify(issued) is None


def test_what_is_remembered_of_good_ones_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jupyter_hf_cache.web.capability._GENUINE_IN_MEMORY", 3)
    capabilities = Capabilities([b"k" * 32])
    for number in range(10):
        assert capabilities.verify(capabilities.issue(10.0, str(number))) is not None
        assert capabilities.verify("1.nonsense.ff.x") is None
    assert len(capabilities._genuine) <= 3
