"""What people, git and uploads change on the suite's Hub."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import requests
from fake_hub import BigFile, FakeHub

ALICE = {"Authorization": "Bearer hf_alice"}
BOB = {"Authorization": "Bearer hf_bob"}


def call(
    hub: FakeHub, method: str, path: str, who: dict[str, str] | None = None, **rest: Any
) -> Any:
    """An answer of the Hub, which has to be a success."""
    answer = requests.request(method, hub.url + path, headers=who or ALICE, timeout=30, **rest)
    assert answer.ok, answer.text
    return answer.json() if answer.text else None


def test_a_discussion_has_a_life(hub: FakeHub) -> None:
    base = "/api/models/org/large/discussions"
    number = call(hub, "POST", base, BOB, json={"title": "Why?", "description": "Tell"})["num"]
    call(hub, "POST", f"{base}/{number}/comment", json={"comment": "So."})
    call(hub, "POST", f"{base}/{number}/status", json={"status": "closed"})
    told = call(hub, "GET", f"{base}/{number}")
    assert [event["type"] for event in told["events"]] == ["comment", "comment", "status-change"]
    assert (told["status"], told["author"]["name"]) == ("closed", "bob")
    proposal = call(hub, "POST", base, json={"title": "Better", "pullRequest": True})["num"]
    repo = hub.catalogue.get("models", "org/large")
    repo.commit({"new.txt": "new"}, branch=f"refs/pr/{proposal}")
    call(hub, "POST", f"{base}/{proposal}/merge")
    assert "new.txt" in repo.head.files
    assert call(hub, "GET", base)["count"] == 2


def test_likes_are_counted_once_each(hub: FakeHub) -> None:
    for who in (ALICE, ALICE, BOB):
        call(hub, "POST", "/api/models/org/large/like", who)
    assert call(hub, "GET", "/api/models/org/large")["likes"] == 2
    assert [row["user"] for row in call(hub, "GET", "/api/models/org/large/likers")] == [
        "alice",
        "bob",
    ]
    call(hub, "DELETE", "/api/models/org/large/like")
    assert call(hub, "GET", "/api/users/alice/likes") == []


def test_a_grant_opens_a_gate(hub: FakeHub) -> None:
    url = f"{hub.url}/org/gated/resolve/main/README.md"
    assert requests.get(url, headers=BOB, timeout=30).status_code == 403
    route = "/api/models/org/gated/user-access-request"
    call(hub, "POST", f"{route}/grant", json={"user": "bob"})
    assert requests.get(url, headers=BOB, timeout=30).ok
    granted = [row["user"]["user"] for row in call(hub, "GET", f"{route}/accepted")]
    assert "bob" in granted


def test_a_large_file_goes_up_in_parts(hub: FakeHub) -> None:
    hub.part_size = 1000
    body = BigFile(2500, seed=3).read(0, 2500)
    oid = hashlib.sha256(body).hexdigest()
    batch = {"operation": "upload", "objects": [{"oid": oid, "size": 2500}]}
    answer = call(hub, "POST", "/org/large.git/info/lfs/objects/batch", json=batch)
    upload = answer["objects"][0]["actions"]["upload"]
    etags = []
    for number in (1, 2, 3):
        part = body[1000 * (number - 1) : 1000 * number]
        done = requests.put(upload["header"][f"{number:05}"], data=part, timeout=30)
        etags.append({"partNumber": number, "etag": done.headers["ETag"]})
    done = requests.post(upload["href"], json={"oid": oid, "parts": etags}, timeout=30)
    assert done.ok, done.text
    assert hub.catalogue.large[oid].read(0, 2500) == body


def test_answers_name_the_hub_as_they_are_told_to(hub: FakeHub) -> None:
    hub.public_url = "https://huggingface.co"
    made = call(hub, "POST", "/api/repos/create", json={"name": "x", "organization": "org"})
    assert made["url"] == "https://huggingface.co/org/x"


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_git_clones_and_pushes(hub: FakeHub, tmp_path: Path) -> None:
    repo = hub.catalogue.get("models", "org/strange-names")
    address = hub.url.replace("http://", "http://alice:hf_alice@")

    def git(*words: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@example.test")
        return subprocess.run(
            ["git", *who, *words],
            cwd=tmp_path,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    git("clone", "-q", f"{address}/org/strange-names", "work")
    assert git("-C", "work", "rev-parse", "HEAD").strip() == repo.head.sha
    (tmp_path / "work" / "new.txt").write_text("new\n")
    git("-C", "work", "add", "new.txt")
    git("-C", "work", "commit", "-q", "-m", "New")
    git("-C", "work", "push", "-q", "origin", "HEAD:main")
    assert git("-C", "work", "rev-parse", "HEAD").strip() == repo.head.sha
    assert repo.head.files["new.txt"].content.read(0, 9) == b"new\n"
