"""What clients build their own cache on: the heads of answers about files."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

import pytest
import requests
from fake_hub import FakeHub
from fake_hub.defaults import STRANGE_NAMES
from serving import RunningCache

TINY = "/hf-internal-testing/tiny-random-bert"
CONFIG = f"{TINY}/resolve/main/config.json"
LARGE = "/org/large/resolve/main/model.bin"
MISSING = f"{TINY}/resolve/main/no-such-file.json"
HARMLESS = {
    "Content-Security-Policy": "sandbox; default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}
SIGNED = ("Signature", "Expires", "Policy", "Key-Pair-Id", "X-Amz")


def commit_of(hub: FakeHub, type: str, id: str, revision: str = "main") -> str:
    repo = hub.catalogue.get(type, id)
    assert repo is not None
    commit = repo.resolve(revision)
    assert commit is not None
    return commit.sha


def etag_of(hub: FakeHub, type: str, id: str, path: str, revision: str = "main") -> str:
    repo = hub.catalogue.get(type, id)
    assert repo is not None
    commit = repo.resolve(revision)
    assert commit is not None
    return commit.files[path].etag


def assert_harmless(answer: requests.Response) -> None:
    """No answer below the endpoint may act in a browser, or tell of storage and Xet."""
    for name, value in HARMLESS.items():
        assert answer.headers.get(name) == value
    for name, value in answer.headers.items():
        assert "xet" not in name.lower()
        assert "xet-" not in value.lower()
        assert not any(word in value for word in SIGNED), (name, value)
    assert "Set-Cookie" not in answer.headers
    assert "Strict-Transport-Security" not in answer.headers
    assert not any(name.lower().startswith("access-control") for name in answer.headers)
    assert not answer.is_redirect


@pytest.mark.parametrize("url", [CONFIG, LARGE], ids=["git", "lfs"])
@pytest.mark.parametrize("warm", [False, True])
def test_head_and_get_carry_what_the_hub_says(
    cache: RunningCache, hub: FakeHub, url: str, warm: bool
) -> None:
    id, _, path = url.strip("/").partition("/resolve/main/")
    if warm:
        cache.get(url)
        cache.wait_idle()
    entry = hub.catalogue.get("models", id).head.files[path]
    for answer in (cache.head(url), cache.get(url)):
        assert answer.status_code == 200
        assert answer.headers["X-Repo-Commit"] == commit_of(hub, "models", id)
        assert answer.headers["ETag"] == f'"{entry.etag}"'
        assert answer.headers["Content-Length"] == str(entry.size)
        assert answer.headers["Accept-Ranges"] == "bytes"
        assert_harmless(answer)
    assert cache.get(url).content == entry.content.read(0, entry.size)


@pytest.mark.parametrize("url", [CONFIG, LARGE], ids=["git", "lfs"])
def test_every_status_names_the_commit(cache: RunningCache, hub: FakeHub, url: str) -> None:
    id, _, path = url.strip("/").partition("/resolve/main/")
    sha, etag = commit_of(hub, "models", id), etag_of(hub, "models", id, path)
    for method in ("GET", "HEAD"):
        part = cache.request(method, url, headers={"Range": "bytes=2-5"})
        assert (part.status_code, part.headers["Content-Length"]) == (206, "4")
        assert part.headers["Content-Range"].startswith("bytes 2-5/")
        same = cache.request(method, url, headers={"If-None-Match": f'"{etag}"'})
        assert same.status_code == 304
        for answer in (part, same):
            assert answer.headers["X-Repo-Commit"] == sha
            assert answer.headers["ETag"] == f'"{etag}"'
            assert_harmless(answer)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_missing_file_names_the_commit_too(
    cache: RunningCache, hub: FakeHub, method: str
) -> None:
    for _ in range(2):
        answer = cache.request(method, MISSING)
        assert answer.status_code == 404
        assert answer.headers["X-Error-Code"] == "EntryNotFound"
        assert answer.headers["X-Error-Message"] == "Entry not found"
        assert answer.headers["X-Repo-Commit"] == commit_of(
            hub, "models", "hf-internal-testing/tiny-random-bert"
        )
        assert_harmless(answer)


@pytest.mark.parametrize("url", [CONFIG, LARGE], ids=["git", "lfs"])
def test_one_byte_of_any_file_is_a_range(cache: RunningCache, url: str) -> None:
    """The JavaScript and Rust clients learn size and digest from `Range: bytes=0-0`."""
    answer = cache.get(
        url,
        headers={"Range": "bytes=0-0", "Accept": "application/vnd.xet-fileinfo+json, */*"},
    )
    assert answer.status_code == 206
    assert answer.headers["Content-Range"].startswith("bytes 0-0/")
    assert len(answer.content) == 1


def test_a_file_complete_on_disk_is_answered_with_its_size(cache: RunningCache) -> None:
    size = int(cache.head(CONFIG).headers["Content-Length"])
    answer = cache.get(CONFIG, headers={"Range": f"bytes={size}-"})
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == f"bytes */{size}"
    assert_harmless(answer)


REVISIONS = [
    ("main", "main"),
    ("HEAD", "HEAD"),
    ("v1.0", "v1.0"),
    ("feature%2Fslash", "feature/slash"),
    ("refs%2Fpr%2F1", "refs/pr/1"),
    ("refs/pr/1", "refs/pr/1"),
]


@pytest.mark.parametrize(("written", "meant"), REVISIONS)
def test_every_form_of_revision(
    cache: RunningCache, hub: FakeHub, written: str, meant: str
) -> None:
    id = "hf-internal-testing/tiny-random-bert"
    sha = commit_of(hub, "models", id, meant)
    for _ in range(2):
        answer = cache.get(f"/{id}/resolve/{written}/config.json")
        assert (answer.status_code, answer.headers["X-Repo-Commit"]) == (200, sha)
    info = cache.get(f"/api/models/{id}/revision/{written}")
    assert info.json()["sha"] == sha
    assert cache.get(f"/api/models/{id}/tree/{written}").headers["X-Repo-Commit"] == sha


@pytest.mark.parametrize("length", [7, 12, 40])
def test_commits_short_and_full(cache: RunningCache, hub: FakeHub, length: int) -> None:
    id = "hf-internal-testing/tiny-random-bert"
    sha = commit_of(hub, "models", id, "refs/pr/1")
    answer = cache.get(f"/{id}/resolve/{sha[:length]}/notes.txt")
    assert answer.text == "from a pull request\n"
    assert answer.headers["X-Repo-Commit"] == sha


@pytest.mark.parametrize("path", ["", "/config.json"])
def test_an_unknown_revision_is_the_hubs_404(cache: RunningCache, hub: FakeHub, path: str) -> None:
    url = f"{TINY}/resolve/nope{path}" if path else f"/api/models{TINY}/revision/nope"
    first, second = cache.get(url), cache.get(url)
    for answer in (first, second):
        assert answer.status_code == 404
        assert answer.headers["X-Error-Code"] == "RevisionNotFound"
        assert answer.headers["X-Error-Message"] == "Invalid rev id: nope"
        assert_harmless(answer)
    assert hub.counters.count(path_contains="nope") == 1, "kept for a moment"


@pytest.mark.parametrize("name", STRANGE_NAMES)
@pytest.mark.parametrize("quoting", ["python", "wholly"])
def test_strange_file_names(cache: RunningCache, hub: FakeHub, name: str, quoting: str) -> None:
    written = quote(name) if quoting == "python" else quote(name, safe="/!$&'()*+,;=:@~")
    expected = b"" if name == "empty.txt" else f"I am {name}\n".encode()
    for _ in range(2):
        answer = cache.get(f"/org/strange-names/resolve/main/{written}")
        assert (answer.status_code, answer.content) == (200, expected)
        assert_harmless(answer)
    assert cache.head(f"/org/strange-names/resolve/main/{written}").headers["ETag"] == (
        f'"{etag_of(hub, "models", "org/strange-names", name)}"'
    )
    asked = cache.request(
        "POST", "/api/models/org/strange-names/paths-info/main", json={"paths": [name]}
    )
    assert [row["path"] for row in asked.json()] == [name]


@pytest.mark.parametrize(
    ("url", "type", "id", "path"),
    [
        ("/bert-base-uncased/resolve/main/config.json", "models", "bert-base-uncased", None),
        ("/datasets/org/tables/resolve/main/csv/train.csv", "datasets", "org/tables", None),
        ("/spaces/org/page/resolve/main/README.md", "spaces", "org/page", None),
        (
            "/datasets/org/tables/resolve/refs%2Fconvert%2Fparquet/parquet/train.parquet",
            "datasets",
            "org/tables",
            "parquet/train.parquet",
        ),
    ],
)
def test_types_and_ids(
    cache: RunningCache, hub: FakeHub, url: str, type: str, id: str, path: str | None
) -> None:
    path = path or url.partition("/resolve/main/")[2]
    answer = cache.get(url)
    entry = hub.catalogue.get(type, id).head.files[path]
    assert answer.content == entry.content.read(0, entry.size)
    assert answer.headers["ETag"] == f'"{entry.etag}"'


def test_slashes_before_the_path_are_one(cache: RunningCache) -> None:
    """datasets and the JavaScript client do not strip a slash at the end of the endpoint."""
    assert cache.get("/" + CONFIG).status_code == 200
    assert cache.get(f"//api/models{TINY}").status_code == 200


def test_html_and_scripts_are_downloads(cache: RunningCache) -> None:
    for name in ("index.html", "image.svg", "script.js"):
        answer = cache.get(f"/spaces/org/page/resolve/main/{name}")
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Content-Disposition"].startswith("attachment")
        assert_harmless(answer)


class TestRaw:
    def test_a_large_file_is_its_pointer(self, cache: RunningCache, hub: FakeHub) -> None:
        entry = hub.catalogue.get("models", "org/large").head.files["model.bin"]
        answer = cache.get("/org/large/raw/main/model.bin")
        assert answer.content == entry.pointer
        assert answer.headers["ETag"] == f'"{entry.oid}"'
        assert answer.headers["X-Repo-Commit"] == commit_of(hub, "models", "org/large")
        head = cache.head("/org/large/raw/main/model.bin")
        assert head.headers["Content-Length"] == str(len(entry.pointer))
        assert_harmless(answer)
        assert hub.counters.count(host="cdn") == 0

    def test_a_small_file_is_itself(self, cache: RunningCache) -> None:
        raw, resolved = cache.get(f"{TINY}/raw/main/config.json"), cache.get(CONFIG)
        assert raw.content == resolved.content
        assert raw.headers["ETag"] == resolved.headers["ETag"]

    def test_a_missing_file(self, cache: RunningCache) -> None:
        answer = cache.get(f"{TINY}/raw/main/nope.txt")
        assert answer.status_code == 404
        assert answer.headers["X-Error-Code"] == "EntryNotFound"


class TestRenamed:
    @pytest.mark.parametrize("id", ["org/old-name", "OldSingleName", "ORG/New-Name"])
    @pytest.mark.parametrize("redirects", [True, False])
    def test_files_come_under_the_old_name(
        self, cache: RunningCache, hub: FakeHub, id: str, redirects: bool
    ) -> None:
        hub.renamed_resolve_redirects = redirects
        for path in ("config.json", "model.bin"):
            for method in ("HEAD", "GET"):
                answer = cache.request(method, f"/{id}/resolve/main/{path}")
                assert answer.status_code == 200
                assert answer.headers["X-Repo-Commit"] == commit_of(hub, "models", "org/new-name")
                assert answer.headers["ETag"] == (
                    f'"{etag_of(hub, "models", "org/new-name", path)}"'
                )

    def test_pages_come_under_the_old_name(self, cache: RunningCache, hub: FakeHub) -> None:
        sha = commit_of(hub, "models", "org/new-name")
        assert cache.get("/api/models/org/old-name").json()["id"] == "org/new-name"
        assert cache.get("/api/models/org/old-name/revision/main").json()["sha"] == sha
        tree = cache.get("/api/models/org/old-name/tree/main?recursive=true")
        assert "model.bin" in [row["path"] for row in tree.json()]

    def test_a_name_that_leads_in_a_circle_ends(self, cache: RunningCache, hub: FakeHub) -> None:
        turn = {"Location": "/org/round/resolve/main/x.json"}
        hub.fault("status", "/org/round/", status=307, headers=turn, times=None)
        answer = cache.get("/org/round/resolve/main/x.json")
        assert answer.status_code == 521
        assert "circle" in answer.headers["X-Error-Message"]


class TestXetIsInvisible:
    def test_in_heads(self, cache: RunningCache) -> None:
        for path in ("model.safetensors", "same.bin"):
            for accept in ("*/*", "application/vnd.xet-fileinfo+json, */*"):
                url = f"/org/xet/resolve/main/{path}"
                for method in ("HEAD", "GET"):
                    answer = cache.request(method, url, headers={"Accept": accept})
                    assert answer.status_code == 200
                    assert "json" not in answer.headers["Content-Type"]
                    assert_harmless(answer)

    @pytest.mark.parametrize(
        "ask",
        [
            lambda cache: cache.get("/api/models/org/xet"),
            lambda cache: cache.get("/api/models/org/xet?blobs=true"),
            lambda cache: cache.get("/api/models/org/xet?expand=sha&expand=xetEnabled"),
            lambda cache: cache.get("/api/models/org/xet/tree/main?recursive=true"),
            lambda cache: cache.get("/api/models/org/xet/tree/main?expand=true"),
            lambda cache: cache.request(
                "POST", "/api/models/org/xet/paths-info/main", data={"paths": ["same.bin"]}
            ),
            lambda cache: cache.request(
                "POST",
                "/api/models/org/xet/paths-info/main",
                json={"paths": ["same.bin"], "expand": True},
            ),
            lambda cache: cache.get("/api/models?search=xet&full=true", trusted=True),
        ],
    )
    def test_in_json(
        self, cache: RunningCache, ask: Callable[[RunningCache], requests.Response]
    ) -> None:
        answer = ask(cache)
        assert answer.status_code == 200
        assert "xethash" not in answer.text.lower()
        assert "xetenabled" not in answer.text.lower()
        assert_harmless(answer)


def test_weights_come_without_leaving_the_endpoint(cache: RunningCache, hub: FakeHub) -> None:
    """hf_xet and browsers follow what headers tell them: nothing leads away."""
    for url in (LARGE, "/org/xet/resolve/main/model.safetensors", CONFIG):
        for method in ("HEAD", "GET"):
            answer = cache.request(method, url, headers={"Authorization": "Bearer hf_alice"})
            assert answer.status_code == 200
            for value in answer.headers.values():
                assert hub.cdn_url not in value
                assert hub.url not in value
    assert all(r.authorization is None for r in hub.counters.select(host="cdn"))


@pytest.mark.parametrize(
    "url",
    [
        "/org/private/resolve/main/config.json",
        "/api/models/org/private",
        "/api/models/nobody/nothing",
        "/org/gated/resolve/main/model.bin",
        "/org/disabled/resolve/main/config.json",
        "/api/whoami-v2",
        "/org/large/blob/main/README.md",
        "/",
        "",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_refusals_are_harmless_too(cache: RunningCache, url: str, method: str) -> None:
    for trusted in (False, True):
        answer = cache.request(method, url, trusted=trusted)
        assert 400 <= answer.status_code < 500
        assert answer.headers["X-Error-Message"]
        assert_harmless(answer)


def test_download_statistics_reach_the_hub_once(cache: RunningCache, hub: FakeHub) -> None:
    counted = {"X-HF-Download-Counter": "1"}
    cache.head(CONFIG, headers=counted)
    cache.get(CONFIG, headers=counted)
    sent = [r for r in hub.counters.requests if "x-hf-download-counter" in r.headers]
    assert [(r.method, r.headers["x-hf-download-counter"]) for r in sent] == [("HEAD", "1")]
