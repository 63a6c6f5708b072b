"""The fake Hub's answers, header by header, as a plain HTTP client sees them."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fake_hub import BigFile, FakeHub
from fake_hub.defaults import STRANGE_NAMES

BERT = "/bert-base-uncased/resolve/main"


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def test_small_file_redirects_to_a_relative_place_and_names_itself(hub: FakeHub, ask: Any) -> None:
    answer = ask("HEAD", f"{BERT}/config.json")
    body = ask("GET", answer.headers["Location"])
    commit = hub.catalogue.get("models", "bert-base-uncased").head.sha
    assert answer.status_code == 307
    assert answer.headers["Location"].startswith("/api/resolve-cache/models/bert-base-uncased/")
    assert answer.headers["X-Repo-Commit"] == commit == body.headers["X-Repo-Commit"]
    assert answer.headers["X-Linked-Size"] == str(len(body.content))
    assert answer.headers["X-Linked-ETag"] == f'"{git_sha1(body.content)}"' == body.headers["ETag"]
    assert "sandbox" in body.headers["Content-Security-Policy"]
    assert body.headers["Content-Disposition"].startswith("inline; filename*=UTF-8''config.json")


def test_large_file_redirects_to_another_host_whose_etag_is_its_own(ask: Any) -> None:
    answer = ask("HEAD", "/org/large/resolve/main/shard.bin")
    body = ask("GET", answer.headers["Location"])
    assert answer.status_code == 302
    assert answer.headers["Location"].startswith("http://localhost:")
    assert answer.headers["X-Linked-ETag"] == f'"{hashlib.sha256(body.content).hexdigest()}"'
    assert answer.headers["X-Linked-Size"] == str(len(body.content)) == str(3 << 20)
    assert body.headers["ETag"] != answer.headers["X-Linked-ETag"]
    assert "X-Repo-Commit" not in body.headers
    assert "X-Xet-Hash" not in answer.headers


def test_xet_file_shows_its_hash_in_headers_and_in_listings(hub: FakeHub, ask: Any) -> None:
    answer = ask("HEAD", "/org/xet/resolve/main/same.bin")
    listed = {row["path"]: row for row in ask("GET", "/api/models/org/xet/tree/main").json()}
    token = ask("GET", "/api/models/org/xet/xet-read-token/main")
    assert answer.headers["X-Xet-Hash"] == listed["same.bin"]["xetHash"]
    assert 'rel="xet-auth"' in answer.headers["Link"]
    assert token.headers["X-Xet-Cas-Url"] == token.json()["casUrl"] == hub.cas_url
    assert hub.counters.count(path_contains="xet-read-token") == 1


def test_a_gated_tree_masks_xet_hashes_for_those_who_may_not_read(hub: FakeHub, ask: Any) -> None:
    repo = hub.repo("models", "org/gated-xet", gated="auto", xet=True)
    repo.commit({"model.bin": BigFile(2 << 20, seed=5)})
    url = "/api/models/org/gated-xet/tree/main"
    assert [row["xetHash"] for row in ask("GET", url).json()] == ["*" * 64]
    assert repo.head is not None
    hashes = [row["xetHash"] for row in ask("GET", url, token="hf_alice").json()]
    assert hashes == [repo.head.files["model.bin"].xet_hash]


def test_those_who_accept_xet_information_get_it_in_place_of_the_file(ask: Any) -> None:
    accept = {"Accept": "application/vnd.xet-fileinfo+json, */*"}
    answer = ask("GET", "/org/xet/resolve/main/same.bin", headers=accept)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/vnd.xet-fileinfo+json"
    assert answer.json()["hash"] == answer.headers["X-Xet-Hash"]
    assert ask("GET", "/org/large/resolve/main/model.bin", headers=accept).status_code == 302


def test_cdn_refuses_a_second_credential_and_any_url_it_did_not_sign(
    hub: FakeHub, ask: Any
) -> None:
    url = ask("HEAD", "/org/large/resolve/main/model.bin").headers["Location"]
    assert ask("HEAD", url).status_code == 200
    assert ask("GET", url, token="hf_alice").status_code == 400
    assert ask("GET", url.replace("Signature=", "Signature=0")).status_code == 403
    hub.urls.expire_all()
    assert ask("GET", url).status_code == 403


def test_cdn_url_expires(hub: FakeHub, ask: Any) -> None:
    hub.url_lifetime = -1
    url = ask("HEAD", "/org/large/resolve/main/model.bin").headers["Location"]
    assert ask("GET", url).status_code == 403


@pytest.mark.parametrize(
    ("asked", "status", "content_range", "bounds"),
    [
        ("bytes=0-0", 206, "bytes 0-0/3145728", (0, 1)),
        ("bytes=1048570-1048580", 206, "bytes 1048570-1048580/3145728", (1048570, 1048581)),
        ("bytes=3145000-", 206, "bytes 3145000-3145727/3145728", (3145000, 3145728)),
        ("bytes=-5", 206, "bytes 3145723-3145727/3145728", (3145723, 3145728)),
        ("bytes=3145728-", 416, "bytes */3145728", (0, 0)),
        ("bytes=5-2", 200, None, (0, 3145728)),
        ("bytes=0-1,5-6", 200, None, (0, 3145728)),
        ("lines=0-1", 200, None, (0, 3145728)),
    ],
)
def test_cdn_answers_ranges(
    ask: Any, asked: str, status: int, content_range: str | None, bounds: tuple[int, int]
) -> None:
    url = ask("HEAD", "/org/large/resolve/main/shard.bin").headers["Location"]
    answer = ask("GET", url, headers={"Range": asked})
    start, end = bounds
    assert answer.status_code == status
    assert answer.headers.get("Content-Range") == content_range
    assert answer.content == BigFile(3 << 20, seed=2).read(start, end - start)


def test_small_file_answers_ranges_and_conditions(ask: Any) -> None:
    first = ask("HEAD", f"{BERT}/vocab.txt")
    place = first.headers["Location"]
    etag = first.headers["X-Linked-ETag"]
    assert ask("GET", place, headers={"Range": "bytes=0-4"}).content == b"[PAD]"
    assert ask("GET", place, headers={"Range": "bytes=99999-"}).status_code == 416
    assert ask("GET", place, headers={"If-None-Match": etag}).status_code == 304
    unchanged = ask("HEAD", f"{BERT}/vocab.txt", headers={"If-None-Match": etag})
    assert unchanged.status_code == 304
    assert "X-Repo-Commit" in unchanged.headers


def test_text_is_compressed_without_a_length_for_those_who_allow_it(hub: FakeHub, ask: Any) -> None:
    headers = {"Accept-Encoding": "gzip"}
    answer = ask("GET", f"{BERT}/tokenizer.json", headers=headers, allow_redirects=True)
    bare = ask("HEAD", f"{BERT}/tokenizer.json", headers=headers, allow_redirects=True)
    plain = ask("GET", f"{BERT}/tokenizer.json", allow_redirects=True)
    sent = hub.counters.select("GET", "/api/resolve-cache/")[0].bytes_sent
    assert answer.headers["Content-Encoding"] == "gzip"
    assert "Content-Length" not in answer.headers
    assert "Content-Length" not in bare.headers
    assert answer.headers["ETag"] == "W/" + plain.headers["ETag"]
    assert answer.content == plain.content
    assert sent == len(gzip.compress(plain.content, compresslevel=1))


def test_resolve_cache_wants_a_full_commit(hub: FakeHub, ask: Any) -> None:
    commit = hub.catalogue.get("models", "bert-base-uncased").head.sha
    base = "/api/resolve-cache/models/bert-base-uncased"
    assert ask("GET", f"{base}/{commit}/vocab.txt").status_code == 200
    assert ask("GET", f"{base}/main/vocab.txt").status_code == 400


def test_raw_gives_the_pointer_of_a_large_file(ask: Any) -> None:
    digest = BigFile(3 << 20, seed=2).sha256()
    answer = ask("GET", "/org/large/raw/main/shard.bin")
    assert answer.text == (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {3 << 20}\n"
    )
    again = ask("GET", "/org/large/raw/main/shard.bin", headers={"If-None-Match": "*"})
    assert again.status_code == 200


@pytest.mark.parametrize("name", STRANGE_NAMES)
def test_strange_names_are_found(ask: Any, name: str) -> None:
    path = f"/org/strange-names/resolve/main/{quote(name)}"
    answer = ask("GET", path, allow_redirects=True)
    assert answer.content == (b"" if name == "empty.txt" else f"I am {name}\n".encode())


@pytest.mark.parametrize(
    ("path", "token", "status", "code", "message"),
    [
        ("/api/models/no/repo", None, 401, None, "Invalid username or password."),
        ("/no/repo/resolve/main/x", None, 401, None, "Invalid username or password."),
        ("/org/private/resolve/main/x", None, 401, None, "Invalid username or password."),
        ("/api/models/no/repo", "hf_bob", 404, "RepoNotFound", "Repository not found"),
        ("/api/models/org/private", "hf_bob", 404, "RepoNotFound", "Repository not found"),
        (f"{BERT}/x", "hf_no", 401, None, "Invalid credentials in Authorization header"),
        ("/api/whoami-v2", None, 401, None, "Invalid username or password."),
        ("/org/gated/resolve/main/config.json", None, 401, "GatedRepo", None),
        ("/org/gated/resolve/main/config.json", "hf_bob", 403, "GatedRepo", None),
        ("/api/models/org/gated/commits/main", None, 401, "GatedRepo", None),
        ("/api/models/org/gated/auth-check", "hf_bob", 403, "GatedRepo", None),
        ("/org/large/resolve/no/x", None, 404, "RevisionNotFound", "Invalid rev id: no"),
        ("/api/models/org/large/tree/no", None, 404, "RevisionNotFound", "Invalid rev id: no"),
        (f"{BERT}/x", None, 404, "EntryNotFound", "Entry not found"),
        ("/api/models/org/large/tree/main/x", None, 404, "EntryNotFound", None),
        ("/org/disabled/resolve/main/config.json", None, 403, None,
         "Access to this resource is disabled."),
        ("/no/such/page/at/all", None, 404, None, None),
    ],
)  # fmt: skip
def test_refusals_have_the_hub_s_status_code_and_words(
    ask: Any, path: str, token: str | None, status: int, code: str | None, message: str | None
) -> None:
    answer = ask("GET", path, token=token)
    assert answer.status_code == status
    assert answer.headers.get("X-Error-Code") == code
    if message is not None:
        assert answer.headers["X-Error-Message"] == message
    if path.startswith("/api/"):
        assert answer.json() == {"error": answer.headers["X-Error-Message"]}
    assert ("X-Repo-Commit" in answer.headers) == (code == "EntryNotFound")


@pytest.mark.parametrize(
    ("path", "token"),
    [
        ("/api/models/org/gated", None),
        ("/api/models/org/disabled", None),
        ("/api/models/org/private", "hf_reader"),
        ("/api/models/org/gated/auth-check", "hf_reader"),
        ("/org/gated/resolve/main/config.json", "hf_reader"),
        ("/org/private/resolve/main/config.json", "hf_alice"),
    ],
)
def test_those_who_may_read_do(ask: Any, path: str, token: str | None) -> None:
    assert ask("GET", path, token=token).status_code == 200


def test_a_revoked_token_is_refused_and_a_lost_grant_closes_the_gate(
    hub: FakeHub, ask: Any
) -> None:
    user = hub.accounts.identify("Bearer hf_reader")
    user.accepted.clear()
    assert ask("GET", "/org/gated/resolve/main/config.json", token="hf_reader").status_code == 403
    hub.accounts.revoke("hf_reader")
    assert ask("GET", f"{BERT}/config.json", token="hf_reader").status_code == 401


def test_every_hub_answer_tells_the_rate_limit(ask: Any) -> None:
    for path, bucket in (("/api/models", "api"), (f"{BERT}/x", "resolvers"), ("/", "pages")):
        answer = ask("GET", path)
        assert answer.headers["RateLimit"].startswith(f'"{bucket}";r=')
        assert answer.headers["RateLimit-Policy"].startswith(f'"fixed window";"{bucket}";q=')


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("/api/models/org/old-name", "/api/models/org/new-name"),
        ("/api/models/OLDsinglename/tree/main?b=%20", "/api/models/org/new-name/tree/main?b=%20"),
        ("/ORG/New-Name/resolve/refs%2Fpr%2F1/a%20b", "/org/new-name/resolve/refs%2Fpr%2F1/a%20b"),
    ],
)  # fmt: skip
def test_old_and_wrongly_written_ids_lead_to_the_repo(ask: Any, old: str, new: str) -> None:
    answer = ask("GET", old)
    assert (answer.status_code, answer.headers["Location"]) == (307, new)
    assert "X-Repo-Commit" not in answer.headers


def test_an_old_name_can_become_another_repo(hub: FakeHub, ask: Any) -> None:
    before = ask("GET", "/api/models/org/old-name", allow_redirects=True).json()
    hub.repo("models", "org/old-name").commit({"config.json": "{}"})
    after = ask("GET", "/api/models/org/old-name").json()
    assert before["_id"] != after["_id"]


@pytest.mark.parametrize(
    "revision",
    ["refs%2Fpr%2F1", "refs/pr/1", "feature%2Fslash", "feature/slash"],
)
def test_revisions_are_understood_quoted_and_bare(ask: Any, revision: str) -> None:
    path = f"/hf-internal-testing/tiny-random-bert/resolve/{revision}/notes.txt"
    assert ask("GET", path, allow_redirects=True).status_code == 200


def test_a_repo_may_be_named_like_a_verb(hub: FakeHub, ask: Any) -> None:
    hub.repo("models", "resolve/tree").commit({"main": "content"})
    assert ask("GET", "/api/datasets/org/parquet").json()["id"] == "org/parquet"
    assert ask("GET", "/api/models/resolve/tree/tree/main").json()[0]["path"] == "main"
    answer = ask("GET", "/resolve/tree/resolve/main/main", allow_redirects=True)
    assert answer.text == "content"


def test_tags_head_and_short_commits_are_revisions(hub: FakeHub, ask: Any) -> None:
    commit = hub.catalogue.get("models", "hf-internal-testing/tiny-random-bert").head.sha
    for revision in ("main", "v1.0", "HEAD", commit, commit[:8]):
        path = f"/api/models/hf-internal-testing/tiny-random-bert/revision/{revision}"
        assert ask("GET", path).json()["sha"] == commit


def test_moving_main_moves_the_answer(hub: FakeHub, ask: Any) -> None:
    repo = hub.repo("models", "org/moving")
    first = repo.commit({"a.txt": "one"})
    assert ask("HEAD", "/org/moving/resolve/main/a.txt").headers["X-Repo-Commit"] == first
    second = repo.commit({"a.txt": "two"})
    assert ask("HEAD", "/org/moving/resolve/main/a.txt").headers["X-Repo-Commit"] == second
    repo.point("main", first)
    assert ask("HEAD", "/org/moving/resolve/main/a.txt").headers["X-Repo-Commit"] == first


def test_tree_pages_follow_absolute_links_and_list_folders(hub: FakeHub, ask: Any) -> None:
    hub.page_size = 100
    rows, url = [], "/api/models/org/many-files/tree/main?recursive=true&expand=false"
    pages = 0
    while url:
        answer = ask("GET", url)
        rows += answer.json()
        pages += 1
        url = answer.links.get("next", {}).get("url", "")
        assert not url or url.startswith(hub.url)
    assert pages == 4
    assert len({row["path"] for row in rows}) == len(rows) == 303
    assert [row["path"] for row in rows if row["type"] == "directory"] == [
        "part-0", "part-1", "part-2",
    ]  # fmt: skip


def test_tree_names_a_large_file_by_sha256_and_its_pointer_by_oid(ask: Any) -> None:
    rows = {r["path"]: r for r in ask("GET", "/api/models/org/large/tree/main").json()}
    pointer = ask("GET", "/org/large/raw/main/shard.bin").content
    row = rows["shard.bin"]
    assert row["oid"] == git_sha1(pointer)
    assert row["lfs"] == {
        "oid": BigFile(3 << 20, seed=2).sha256(), "size": 3 << 20, "pointerSize": len(pointer),
    }  # fmt: skip
    assert "copy/model.bin" not in rows
    assert rows["copy"]["type"] == "directory"
    assert ask("GET", "/api/models/org/large/tree/main/copy").json()[0]["path"] == "copy/model.bin"


def test_paths_info_takes_forms_and_json_and_leaves_out_the_unknown(ask: Any) -> None:
    path = "/api/models/org/large/paths-info/main"
    wanted = {"paths": ["shard.bin", "copy", "none"], "expand": True}
    for rows in (
        ask("POST", path, json=wanted).json(),
        ask("POST", path, data=wanted).json(),
    ):
        assert [row["path"] for row in rows] == ["shard.bin", "copy"]
        assert all("lastCommit" in row for row in rows)


def test_info_can_be_cut_to_some_fields(ask: Any) -> None:
    path = "/api/models/org/large"
    assert set(ask("GET", f"{path}?expand=sha").json()) == {"_id", "id", "sha"}
    assert "xetEnabled" in ask("GET", f"{path}?expand[]=xetEnabled").json()
    # A field that this repo has no value of is left out, one that no repo has is an error.
    assert "pipeline_tag" not in ask("GET", "/api/models/org/large?expand=pipeline_tag").json()
    assert "gated" in ask("GET", "/api/models?expand=gated").json()[0]
    assert "xetEnabled" not in ask("GET", path).json()
    blobs = ask("GET", f"{path}?blobs=true").json()["siblings"]
    assert {"sha256", "size", "pointerSize"} == set(blobs[-1]["lfs"])


def test_commits_and_refs_are_listed(hub: FakeHub, ask: Any) -> None:
    hub.commits_page_size = 1
    base = "/api/models/hf-internal-testing/tiny-random-bert"
    answer = ask("GET", f"{base}/commits/main")
    refs = ask("GET", f"{base}/refs?include_prs=1").json()
    assert answer.headers["X-Total-Count"] == "2"
    assert ask("GET", answer.links["next"]["url"]).json()[0]["title"] == "initial commit"
    assert [ref["ref"] for ref in refs["pullRequests"]] == ["refs/pr/1"]
    assert {ref["name"] for ref in refs["branches"]} == {"main", "feature/slash"}
    assert "pullRequests" not in ask("GET", f"{base}/refs").json()


def test_lists_hide_what_the_caller_may_not_see(hub: FakeHub, ask: Any) -> None:
    def names(query: str, token: str | None = None) -> set[str]:
        return {row["id"] for row in ask("GET", f"/api/models?{query}", token=token).json()}

    assert "org/private" not in names("author=org")
    assert "org/private" in names("author=org", "hf_reader")
    assert names("search=dialo") == {"microsoft/DialoGPT-medium"}
    assert names("filter=bert&filter=fill-mask") == {"bert-base-uncased"}
    hub.list_page_size = 3
    first = ask("GET", "/api/models?limit=2")
    assert len(first.json()) == 2
    assert len(ask("GET", first.links["next"]["url"]).json()) == 2


def test_device_login_gives_a_working_token(hub: FakeHub, ask: Any) -> None:
    code = ask("POST", "/oauth/device", data={"client_id": "x"}).json()["device_code"]
    form = {"device_code": code}
    assert ask("POST", "/oauth/token", data=form).json() == {"error": "authorization_pending"}
    hub.approve_device_logins(hub.accounts.identify("Bearer hf_bob"))
    token = ask("POST", "/oauth/token", data=form).json()["access_token"]
    assert ask("GET", "/api/whoami-v2", token=token).json()["name"] == "bob"


def test_login_sets_a_cookie(ask: Any) -> None:
    assert "token=" in ask("GET", "/login").headers["Set-Cookie"]


def test_counters_know_who_asked_for_what(hub: FakeHub, ask: Any) -> None:
    ask("GET", f"{BERT}/config.json", token="hf_bob", allow_redirects=True)
    ask("GET", "/org/large/resolve/main/shard.bin", allow_redirects=True)
    assert hub.counters.count("GET", "config.json", "hub") == 2
    assert hub.counters.select("GET", f"{BERT}/config.json")[0].authorization == "Bearer hf_bob"
    assert hub.counters.wait_until(lambda seen: all(r.done for r in seen.requests))
    assert hub.counters.bytes("cdn") == 3 << 20
    assert hub.counters.select(host="cdn")[0].authorization is None
    hub.counters.reset()
    assert hub.counters.requests == []


def test_pause_refuses_connections_and_resume_takes_them_again(hub: FakeHub, ask: Any) -> None:
    url = hub.url
    assert ask("GET", "/api/models").status_code == 200
    hub.pause()
    with pytest.raises(OSError):
        ask("GET", "/api/models")
    hub.resume()
    assert hub.url == url
    assert ask("GET", "/api/models").status_code == 200


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_object_ids_are_those_of_git(hub: FakeHub, tmp_path: Path) -> None:
    repo = hub.repo("models", "org/ids")
    files = {"a.txt": b"a", "dir/b.txt": b"b", "dir.txt": b"c", "dir/sub/d": b"d", "dir-x/e": b"e"}
    repo.commit(files)
    commit = repo.head
    for path, data in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-c", "core.autocrlf=false", *words],
            cwd=tmp_path, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.strip()

    git("init", "-q")
    git("add", ".")
    assert git("write-tree", "--prefix=dir/") == commit.folders["dir"]
    assert git("hash-object", "a.txt") == commit.files["a.txt"].oid


def test_big_files_are_the_same_however_they_are_read() -> None:
    content = BigFile((3 << 20) + 5, seed=9)
    whole = content.read(0, content.size)
    assert len(whole) == content.size
    assert hashlib.sha256(whole).hexdigest() == content.sha256()
    for offset, length in ((0, 1), (3, 20), (15, 2), ((1 << 20) - 3, 6), (content.size - 2, 99)):
        assert content.read(offset, length) == whole[offset : offset + length]
    assert BigFile(content.size, seed=8).sha256() != content.sha256()
