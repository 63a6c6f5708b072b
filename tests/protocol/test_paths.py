"""What a path of the Hub asks for, and which paths are refused."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_hf_cache.errors import BadPath
from jupyter_hf_cache.protocol.paths import (
    HubRequest,
    Kind,
    api_path,
    is_commit,
    parse,
    resolve_path,
)
from jupyter_hf_cache.protocol.segments import MAX_PATH_LENGTH
from jupyter_hf_cache.storage.records import RepoRef

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def model(id_: str) -> RepoRef:
    return RepoRef("models", id_)


def dataset(id_: str) -> RepoRef:
    return RepoRef("datasets", id_)


@pytest.mark.parametrize(
    ("path", "repo", "revision", "file"),
    [
        ("/gpt2/resolve/main/x", model("gpt2"), "main", "x"),
        ("/o/n/resolve/main/x", model("o/n"), "main", "x"),
        ("o/n/resolve/main/x", model("o/n"), "main", "x"),
        ("//o/n/resolve/main/x", model("o/n"), "main", "x"),
        ("///datasets/o/n/resolve/main/x", dataset("o/n"), "main", "x"),
        ("/datasets/squad/resolve/main/x", dataset("squad"), "main", "x"),
        ("/spaces/o/n/resolve/main/app.py", RepoRef("spaces", "o/n"), "main", "app.py"),
        (f"/o/n/resolve/{COMMIT}/a/b/c.txt", model("o/n"), COMMIT, "a/b/c.txt"),
        ("/o/n/resolve/HEAD/x", model("o/n"), "HEAD", "x"),
        ("/o/n/resolve/refs%2Fpr%2F1/x", model("o/n"), "refs/pr/1", "x"),
        ("/o/n/resolve/refs/pr/1/x", model("o/n"), "refs/pr/1", "x"),
        ("/o/n/resolve/refs/convert/parquet/d/x", model("o/n"), "refs/convert/parquet", "d/x"),
        ("/o/n/resolve/feature%2Fslash/x", model("o/n"), "feature/slash", "x"),
        ("/o/n/resolve/refs/prose/x", model("o/n"), "refs", "prose/x"),
        ("/o/n/resolve/refs/pr/one/x", model("o/n"), "refs", "pr/one/x"),
        ("/o/n/resolve/main/a%20b.txt", model("o/n"), "main", "a b.txt"),
        ("/o/n/resolve/main/a%2525b", model("o/n"), "main", "a%25b"),
        ("/o/n/resolve/main/a%23b%3Fc", model("o/n"), "main", "a#b?c"),
        ("/o/n/resolve/main/a#b", model("o/n"), "main", "a#b"),
        ("/o/n/resolve/main/a+b", model("o/n"), "main", "a+b"),
        ("/o/n/resolve/main/%C3%BC/%E2%9C%93", model("o/n"), "main", "ü/✓"),
        ("/o/n/resolve/main/" + "ü".encode().decode("latin-1"), model("o/n"), "main", "ü"),
        ("/o/n/resolve/main/a%2Fb", model("o/n"), "main", "a/b"),
        ("/o/n/resolve/main/resolve/main/x", model("o/n"), "main", "resolve/main/x"),
        ("/gpt2/resolve/main/resolve/main/x", model("gpt2"), "main", "resolve/main/x"),
        ("/o/n/resolve/main/..x/...", model("o/n"), "main", "..x/..."),
        ("/o/resolve/resolve/main/x", model("o/resolve"), "main", "x"),
        ("/o/raw/resolve/main/x", model("o/raw"), "main", "x"),
        ("/o/info/resolve/main/x", model("o/info"), "main", "x"),
        ("/gpt2/resolve/raw/x", model("gpt2"), "raw", "x"),
        ("/models/x/resolve/main/f", model("models/x"), "main", "f"),
    ],
)
def test_resolve_names_repo_revision_and_file(
    path: str, repo: RepoRef, revision: str, file: str
) -> None:
    request = parse("GET", path)

    assert (request.kind, request.repo) == (Kind.RESOLVE, repo)
    assert (request.revision, request.file) == (revision, file)
    assert not request.writes
    assert not request.mints


@pytest.mark.parametrize(
    ("path", "kind", "repo", "revision", "file"),
    [
        ("/api/models/gpt2", Kind.INFO, model("gpt2"), None, None),
        ("/api/models/o/n", Kind.INFO, model("o/n"), None, None),
        ("/api/models/o/n/", Kind.INFO, model("o/n"), None, None),
        ("/api/datasets/o/n/revision/main", Kind.INFO, dataset("o/n"), "main", None),
        ("/api/models/gpt2/revision/refs%2Fpr%2F1", Kind.INFO, model("gpt2"), "refs/pr/1", None),
        ("/api/models/o/n/revision/refs/pr/1", Kind.INFO, model("o/n"), "refs/pr/1", None),
        ("/api/models/o/n/revision/HEAD", Kind.INFO, model("o/n"), "HEAD", None),
        ("/api/models/o/tree", Kind.INFO, model("o/tree"), None, None),
        ("/api/models/gpt2/tree/main", Kind.TREE, model("gpt2"), "main", ""),
        ("/api/models/o/n/tree/main", Kind.TREE, model("o/n"), "main", ""),
        ("/api/models/o/n/tree/main/", Kind.TREE, model("o/n"), "main", ""),
        ("/api/models/o/n/tree/main/a/b", Kind.TREE, model("o/n"), "main", "a/b"),
        ("/api/models/o/n/tree/main/a%2Fb%20c", Kind.TREE, model("o/n"), "main", "a/b c"),
        ("/api/models/o/n/tree/refs/pr/7/a", Kind.TREE, model("o/n"), "refs/pr/7", "a"),
        ("/api/models/o/tree/tree/main", Kind.TREE, model("o/tree"), "main", ""),
        ("/api/models/o/n/refs", Kind.REFS, model("o/n"), None, None),
        ("/api/models/gpt2/refs", Kind.REFS, model("gpt2"), None, None),
        ("/api/models/o/n/commits/main", Kind.COMMITS, model("o/n"), "main", None),
        ("/api/models", Kind.LIST, None, None, None),
        ("/api/datasets/", Kind.LIST, None, None, None),
        ("/api/spaces", Kind.LIST, None, None, None),
        ("/o/n/raw/main/x", Kind.RAW, model("o/n"), "main", "x"),
        ("/gpt2/raw/main/a/x", Kind.RAW, model("gpt2"), "main", "a/x"),
    ],
)
def test_reads_are_told_apart(
    path: str, kind: Kind, repo: RepoRef | None, revision: str | None, file: str | None
) -> None:
    for method in ("GET", "HEAD", "get"):
        request = parse(method, path)
        found = (request.kind, request.repo, request.revision, request.file)
        assert found == (kind, repo, revision, file)
        assert not request.writes


@pytest.mark.parametrize(
    ("method", "path", "repo", "mints", "writes"),
    [
        ("GET", "/", None, False, False),
        ("GET", "", None, False, False),
        ("GET", "/api", None, False, False),
        ("GET", "/api/whoami-v2", None, False, False),
        ("HEAD", "/api/telemetry/x", None, False, False),
        ("POST", "/api/repos/create", None, False, True),
        ("DELETE", "/api/repos/delete", None, False, True),
        ("POST", "/api/models", None, False, True),
        ("OPTIONS", "/o/n/resolve/main/x", model("o/n"), False, False),
        ("PUT", "/o/n/resolve/main/x", model("o/n"), False, True),
        ("DELETE", "/api/models/o/n", model("o/n"), False, True),
        ("POST", "/api/models/o/n/preupload/main", model("o/n"), False, True),
        ("POST", "/api/models/o/n/commit/main", model("o/n"), False, True),
        ("POST", "/api/models/gpt2/commit/main", model("gpt2"), False, True),
        ("POST", "/api/models/o/n/discussions", model("o/n"), False, True),
        ("GET", "/api/models/o/n/discussions/3", model("o/n"), False, False),
        ("POST", "/api/models/o/n/like", model("o/n"), False, True),
        ("GET", "/api/models/o/n/auth-check", model("o/n"), False, False),
        ("GET", "/api/models/o/n/paths-info/main", model("o/n"), False, False),
        ("GET", "/api/models/o/n/refs/extra", model("o/n"), False, False),
        ("GET", "/api/models/o/n/revision/a/b", model("o/n"), False, False),
        ("GET", "/api/models/o/n/xet-read-token/main", model("o/n"), True, False),
        ("GET", "/api/models/o/n/xet-write-token/main", model("o/n"), True, True),
        ("GET", "/api/datasets/squad/xet-read-token/main", dataset("squad"), True, False),
        ("GET", "/api/models/o/n/jwt", model("o/n"), True, False),
        ("POST", "/o/n.git/info/lfs/objects/batch", model("o/n"), True, True),
        ("POST", "/datasets/o/n.git/info/lfs/objects/batch", dataset("o/n"), True, True),
        ("GET", "/o/n.git/info/refs", model("o/n"), True, False),
        ("GET", "/o/n/info/refs", model("o/n"), True, False),
        ("GET", "/gpt2/info/refs", model("gpt2"), True, False),
        ("POST", "/o/n.git/git-upload-pack", model("o/n"), True, False),
        ("POST", "/gpt2.git/git-receive-pack", model("gpt2"), True, True),
        ("GET", f"/api/resolve-cache/models/o/n/{COMMIT}/x", model("o/n"), False, False),
        ("GET", f"/api/resolve-cache/models/gpt2/{COMMIT}/x", model("gpt2"), False, False),
        ("GET", "/api/resolve-cache/models/o/n/main/x", None, False, False),
        ("GET", "/o/n/blob/main/x", model("o/n"), False, False),
        ("GET", "/o/n/resolve/main", None, False, False),
        ("GET", "/settings/tokens", None, False, False),
        ("GET", "/kernels/o/n/resolve/main/x", None, False, False),
    ],
)
def test_everything_else_is_forwarded(
    method: str, path: str, repo: RepoRef | None, mints: bool, writes: bool
) -> None:
    request = parse(method, path)

    assert request.kind is Kind.FORWARD
    assert (request.repo, request.mints, request.writes) == (repo, mints, writes)


def test_a_push_announced_by_get_is_a_write() -> None:
    request = parse("GET", "/o/n.git/info/refs", "service=git-receive-pack")

    assert request.writes
    assert not parse("GET", "/o/n.git/info/refs", "service=git-upload-pack").writes


def test_paths_info_is_a_read_although_it_is_posted() -> None:
    request = parse("POST", "/api/datasets/o/n/paths-info/refs/convert/parquet", "expand=true")

    assert request == HubRequest(
        kind=Kind.PATHS_INFO,
        method="POST",
        path="/api/datasets/o/n/paths-info/refs%2Fconvert%2Fparquet",
        query="expand=true",
        repo=dataset("o/n"),
        revision="refs/convert/parquet",
    )


@pytest.mark.parametrize(
    ("received", "canonical"),
    [
        ("//gpt2/resolve/main/x", "/gpt2/resolve/main/x"),
        ("/o/n/resolve/refs/pr/1/a b", "/o/n/resolve/refs%2Fpr%2F1/a%20b"),
        ("/o/n/resolve/main/a%2Fb", "/o/n/resolve/main/a/b"),
        ("/o/n/resolve/main/%61+%7e", "/o/n/resolve/main/a%2B~"),
        ("/o/n/resolve/main/100%25", "/o/n/resolve/main/100%25"),
        ("/api/models/o/n/tree/feature%2Fx/a%2Fb", "/api/models/o/n/tree/feature%2Fx/a/b"),
        ("/api/models/o/n/", "/api/models/o/n"),
        ("/api/organizations/x/", "/api/organizations/x/"),
        ("/api/x/a%2Fb%3Fc", "/api/x/a%2Fb%3Fc"),
        ("", "/"),
    ],
)
def test_the_path_is_written_in_one_form(received: str, canonical: str) -> None:
    assert parse("GET", received).path == canonical
    assert parse("GET", canonical).path == canonical


@pytest.mark.parametrize(
    "path",
    [
        "/o/n/resolve/main/../x",
        "/o/n/resolve/main/%2e%2e/x",
        "/o/n/resolve/main/.%2E/x",
        "/o/n/resolve/main/./x",
        "/o/n/resolve/main/%2e",
        "/o/n/resolve/main/a%2F..%2Fx",
        "/o/n/resolve/main/a%2F%2Fx",
        "/o/n/resolve/main/a//x",
        "/o/n/resolve/main//x",
        "/o/n/resolve/main/x/",
        "/o/n/resolve/../x",
        "/o/n/resolve/a%2F..%2Fb/x",
        "/o/n/resolve/%2Fmain/x",
        "/o/../resolve/main/x",
        "/../n/resolve/main/x",
        "/api/models/../whoami-v2",
        "/api/%2e%2e/settings",
        "/o/n/resolve/main/a%5Cb",
        "/o/n/resolve/main/..\\x",
        "/o/n/resolve/main/a%00",
        "/o/n/resolve/main/a%0d%0aX:1",
        "/o/n/resolve/main/a\tb",
        "/o/n/resolve/main/a%7F",
        "/o/n/resolve/main/%C2%85",
        "/o/n/resolve/main/%FF",
        "/o/n/resolve/main/%C0%AE",
        "/o/n/resolve/main/%ED%A0%80",
        "/o/n/resolve/main/✓",
        "/o/n/resolve/main/%",
        "/o/n/resolve/main/%4",
        "/o/n/resolve/main/%zz",
        "/o/n/resolve/main/" + "x" * MAX_PATH_LENGTH,
        "/o%2Fn/resolve/main/x",
        "/o/n%20m/resolve/main/x",
        "/api/models/o:p/n/tree/main",
    ],
)
def test_doubtful_paths_are_refused_with_advice(path: str) -> None:
    with pytest.raises(BadPath) as refused:
        parse("GET", path)

    assert refused.value.status == 400
    assert refused.value.advice
    assert refused.value.text.isprintable()


def test_the_query_is_kept_as_received() -> None:
    query = "expand[]=sha&search=a%20b+c&cursor=%2B%3D&x="

    assert parse("GET", "/api/models", query).query == query


def test_what_would_end_the_url_is_encoded_in_the_query() -> None:
    assert parse("GET", "/api/models", 'a=#b "c"').query == "a=%23b%20%22c%22"


@pytest.mark.parametrize("query", ["a=\r\nHost: x", "a=\x00"])
def test_control_characters_in_the_query_are_refused(query: str) -> None:
    with pytest.raises(BadPath):
        parse("GET", "/api/models", query)


@pytest.mark.parametrize(
    ("repo", "revision", "file", "path"),
    [
        (model("gpt2"), "main", "x", "/gpt2/resolve/main/x"),
        (dataset("o/n"), "refs/pr/1", "a b.txt", "/datasets/o/n/resolve/refs%2Fpr%2F1/a%20b.txt"),
        (RepoRef("spaces", "o/n"), "f/s", "d/é+", "/spaces/o/n/resolve/f%2Fs/d/%C3%A9%2B"),
    ],
)
def test_resolve_paths_are_quoted_as_huggingface_hub_does(
    repo: RepoRef, revision: str, file: str, path: str
) -> None:
    assert resolve_path(repo, revision, file) == path


def test_api_paths_name_what_is_given() -> None:
    repo = dataset("o/n")

    assert api_path(repo) == "/api/datasets/o/n"
    assert api_path(repo, "refs") == "/api/datasets/o/n/refs"
    assert api_path(repo, "tree", "a/b", "c/d e") == "/api/datasets/o/n/tree/a%2Fb/c/d%20e"


@pytest.mark.parametrize(
    ("revision", "expected"),
    [
        (COMMIT, True),
        (COMMIT.upper(), False),
        (COMMIT[:39], False),
        (COMMIT + "0", False),
        (COMMIT + "\n", False),
        ("main", False),
    ],
)
def test_only_full_ids_are_commits(revision: str, expected: bool) -> None:
    assert is_commit(revision) is expected


_names = st.text(
    st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="/\\"), min_size=1, max_size=9
).filter(lambda name: name not in (".", ".."))
_ids = st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=9).filter(
    lambda name: name not in ("api", "datasets", "spaces")
)


@given(
    type_=st.sampled_from(["models", "datasets", "spaces"]),
    id_=st.lists(_ids, min_size=2, max_size=2).map("/".join),
    revision=st.lists(_names, min_size=1, max_size=3).map("/".join),
    file=st.lists(_names, min_size=1, max_size=4).map("/".join),
)
def test_what_is_written_reads_back(type_: str, id_: str, revision: str, file: str) -> None:
    repo = RepoRef(type_, id_)
    resolved = parse("GET", resolve_path(repo, revision, file))
    listed = parse("GET", api_path(repo, "tree", revision, file))

    assert resolved.kind is Kind.RESOLVE
    assert (resolved.repo, resolved.revision, resolved.file) == (repo, revision, file)
    assert parse("GET", resolved.path) == resolved
    assert (listed.repo, listed.revision, listed.file) == (repo, revision, file)


@given(st.text(max_size=60), st.sampled_from(["GET", "POST"]))
def test_any_path_is_read_or_refused(path: str, method: str) -> None:
    try:
        request = parse(method, path)
    except BadPath:
        return
    assert request.path.startswith("/")
    assert request.path.isascii()
    assert ".." not in request.path.split("/")
    assert parse(method, request.path).repo == request.repo
