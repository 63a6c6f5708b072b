"""Who may read what: the upstream decides, and what is kept changes nothing about that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import requests
from fake_hub import BigFile, FakeHub, Repo
from serving import RunningCache
from wall_clock import Clock

from jupyter_hf_cache.web import handler, network
from jupyter_hf_cache.web.context import AccessOptions

KINDS = ("public", "private", "gated", "private-gated", "disabled")
CALLERS = ("anonymous", "reader", "bob", "bad", "owner", "bob-trusted")
SECRET = b'{"secret": "the contents of the file"}'
FILE = "secret-file-name.json"
WEIGHTS = BigFile(1_200_000, seed=77)

# What the caller may do: F files and pages, P pages only, "-" nothing.
MAY = {
    "public": dict.fromkeys(CALLERS, "F") | {"bad": "-"},
    "private": {
        "anonymous": "-",
        "reader": "F",
        "bob": "-",
        "bad": "-",
        "owner": "F",
        "bob-trusted": "-",
    },
    "gated": {
        "anonymous": "P",
        "reader": "F",
        "bob": "P",
        "bad": "-",
        "owner": "F",
        "bob-trusted": "P",
    },
    "private-gated": {
        "anonymous": "-",
        "reader": "F",
        "bob": "-",
        "bad": "-",
        "owner": "F",
        "bob-trusted": "-",
    },
    "disabled": dict.fromkeys(CALLERS, "P") | {"bad": "-"},
}

FILE_READS: dict[str, Callable[[str, str], tuple[str, str, dict[str, str]]]] = {
    "HEAD": lambda id, sha: ("HEAD", f"/{id}/resolve/main/{FILE}", {}),
    "GET": lambda id, sha: ("GET", f"/{id}/resolve/main/{FILE}", {}),
    "GET at the commit": lambda id, sha: ("GET", f"/{id}/resolve/{sha}/{FILE}", {}),
    "Range": lambda id, sha: ("GET", f"/{id}/resolve/main/model.bin", {"Range": "bytes=5-9"}),
    "raw": lambda id, sha: ("GET", f"/{id}/raw/main/model.bin", {}),
    "condition": lambda id, sha: ("GET", f"/{id}/resolve/main/{FILE}", {"If-None-Match": "*"}),
    "missing": lambda id, sha: ("GET", f"/{id}/resolve/{sha}/no-such-file", {}),
}
PAGE_READS: dict[str, Callable[[str, str], tuple[str, str, dict[str, str]]]] = {
    "info": lambda id, sha: ("GET", f"/api/models/{id}", {}),
    "revision": lambda id, sha: ("GET", f"/api/models/{id}/revision/{sha}", {}),
    "refs": lambda id, sha: ("GET", f"/api/models/{id}/refs", {}),
}
LIST_READS: dict[str, Callable[[str, str], tuple[str, str, dict[str, str]]]] = {
    "tree": lambda id, sha: ("GET", f"/api/models/{id}/tree/main", {}),
    "tree at the commit": lambda id, sha: ("GET", f"/api/models/{id}/tree/{sha}", {}),
    "paths-info": lambda id, sha: ("POST", f"/api/models/{id}/paths-info/{sha}", {}),
    "commits": lambda id, sha: ("GET", f"/api/models/{id}/commits/{sha}", {}),
}
EVERY_READ = {**FILE_READS, **PAGE_READS, **LIST_READS}


@pytest.fixture
def repos(hub: FakeHub) -> dict[str, Repo]:
    """A repo of each kind with the same weights; `hf_reader` may read what can be read."""
    # Whether a gated repo's tree is open is not settled; here it goes with the files.
    hub.gated_tree_open = False
    repos = {}
    for kind in KINDS:
        repo = hub.repo(
            "models",
            f"org/{kind}-repo",
            private="private" in kind,
            gated="auto" if "gated" in kind else False,
            disabled=kind == "disabled",
        )
        repo.commit({FILE: SECRET, "model.bin": WEIGHTS})
        repos[kind] = repo
    reader = hub.accounts.identify("Bearer hf_reader")
    assert reader is not None
    reader.reads.update(repo.id for repo in repos.values())
    reader.accepted.update(repo.id for repo in repos.values())
    return repos


@pytest.fixture(params=["cold", "warm", "stale access"])
def state(
    request: pytest.FixtureRequest, tmp_path: Path, hub: FakeHub, repos: dict[str, Repo]
) -> Iterator[RunningCache]:
    """A cache in which somebody with the right has loaded nothing, or everything."""
    options = {"access_ttl": 0.0} if request.param == "stale access" else {}
    with RunningCache(tmp_path, hub, **options) as cache:
        if request.param != "cold":
            load_everything(cache, repos)
        store_token(cache)
        yield cache


def store_token(cache: RunningCache, token: str = "hf_reader") -> None:
    """Make `token` the one that a trusted caller without a token of their own reads with."""
    remote = cache.service.config.remotes()[0]
    cache.service.config.update_remote(remote.id, {"hf_token": token})


def load_everything(cache: RunningCache, repos: dict[str, Repo]) -> None:
    for repo in repos.values():
        assert repo.head is not None
        for read in EVERY_READ.values():
            ask(cache, "reader", read(repo.id, repo.head.sha))
            ask(cache, "reader", ("GET", f"/{repo.id}/resolve/main/model.bin", {}))
    cache.wait_idle()


def ask(
    cache: RunningCache, caller: str, read: tuple[str, str, dict[str, str]]
) -> requests.Response:
    method, url, headers = read
    tokens = {"reader": "hf_reader", "bob": "hf_bob", "bad": "hf_revoked", "bob-trusted": "hf_bob"}
    if caller in tokens:
        headers = {**headers, "Authorization": f"Bearer {tokens[caller]}"}
    data = {"paths": [FILE, "model.bin"]} if method == "POST" else None
    trusted = caller in ("owner", "bob-trusted")
    return cache.request(method, url, trusted=trusted, headers=headers, data=data)


def shows_nothing(answer: requests.Response) -> bool:
    """Whether an answer tells neither contents, names, digests nor sizes."""
    told = answer.content + str(dict(answer.headers)).encode()
    secrets = (b"contents of the file", WEIGHTS.sha256().encode(), WEIGHTS.read(5, 5))
    return answer.status_code in (401, 403, 404, 521) and not any(s in told for s in secrets)


def refusal_of_the_hub(hub: FakeHub, caller: str, repo: Repo, url: str) -> tuple[int, str]:
    tokens = {"reader": "hf_reader", "bob": "hf_bob", "bad": "hf_revoked", "bob-trusted": "hf_bob"}
    token = "hf_reader" if caller == "owner" else tokens.get(caller)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = requests.get(hub.url + url, headers=headers, timeout=30, allow_redirects=False)
    return answer.status_code, answer.headers.get("X-Error-Message", "")


def expected_status(name: str) -> int:
    return {"Range": 206, "condition": 304, "missing": 404}.get(name, 200)


@pytest.mark.parametrize("kind", KINDS)
def test_everybody_reads_what_the_hub_lets_them(
    state: RunningCache, hub: FakeHub, repos: dict[str, Repo], kind: str
) -> None:
    repo = repos[kind]
    assert repo.head is not None
    for caller, may in MAY[kind].items():
        for name, read in EVERY_READ.items():
            question = read(repo.id, repo.head.sha)
            answer = ask(state, caller, question)
            if may == "F" or (may == "P" and name in PAGE_READS):
                assert answer.status_code == expected_status(name), (caller, name, answer.text)
                continue
            assert shows_nothing(answer), (caller, name, answer.status_code, answer.text)
            if question[0] == "GET":
                status, message = refusal_of_the_hub(hub, caller, repo, question[1])
                told = (answer.status_code, answer.headers["X-Error-Message"])
                assert told == (status, message), (caller, name)


@pytest.mark.parametrize("kind", KINDS)
def test_without_the_hub_nobody_reads_more(
    state: RunningCache, hub: FakeHub, repos: dict[str, Repo], kind: str
) -> None:
    repo = repos[kind]
    assert repo.head is not None
    for caller in CALLERS:
        for read in EVERY_READ.values():
            ask(state, caller, read(repo.id, repo.head.sha))
        ask(state, caller, ("GET", f"/{repo.id}/resolve/main/model.bin", {}))
    state.wait_idle()
    hub.pause()
    for caller, may in MAY[kind].items():
        for name, read in EVERY_READ.items():
            answer = ask(state, caller, read(repo.id, repo.head.sha))
            if may == "F" or (may == "P" and name in PAGE_READS):
                assert answer.status_code == expected_status(name), (caller, name, answer.text)
            else:
                assert shows_nothing(answer), (caller, name)


class TestCodes:
    """huggingface_hub tells its exceptions apart by these."""

    def test_an_anonymous_refusal_gets_the_code_the_hub_leaves_out(
        self, cache: RunningCache
    ) -> None:
        for url in ("/org/private/resolve/main/x.json", "/api/models/org/private"):
            answer = cache.get(url)
            assert answer.status_code == 401
            assert answer.headers["X-Error-Code"] == "RepoNotFound"
            assert answer.headers["X-Error-Message"] == "Invalid username or password."

    def test_a_bad_token_stays_without_one(self, cache: RunningCache) -> None:
        for url in ("/org/large/resolve/main/README.md", "/api/models/org/large"):
            answer = cache.get(url, headers={"Authorization": "Bearer hf_revoked"})
            assert answer.status_code == 401
            assert "X-Error-Code" not in answer.headers
            expected = "Invalid credentials in Authorization header"
            assert answer.headers["X-Error-Message"] == expected

    @pytest.mark.parametrize(("token", "status"), [(None, 401), ("hf_bob", 403)])
    def test_gated(self, cache: RunningCache, token: str | None, status: int) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = cache.get("/org/gated/resolve/main/config.json", headers=headers)
        assert (answer.status_code, answer.headers["X-Error-Code"]) == (status, "GatedRepo")
        assert "restricted" in answer.headers["X-Error-Message"]

    def test_disabled(self, cache: RunningCache) -> None:
        answer = cache.get("/org/disabled/resolve/main/config.json")
        assert answer.status_code == 403
        assert answer.headers["X-Error-Message"] == "Access to this resource is disabled."
        assert cache.get("/api/models/org/disabled").json()["disabled"] is True


def test_equal_bytes_are_shared_but_the_right_is_not(
    cache: RunningCache, hub: FakeHub, repos: dict[str, Repo]
) -> None:
    private, public = repos["private"], repos["public"]
    ask(cache, "reader", ("GET", f"/{private.id}/resolve/main/model.bin", {}))
    cache.wait_idle()
    hub.counters.reset()
    answer = ask(cache, "anonymous", ("GET", f"/{public.id}/resolve/main/model.bin", {}))
    assert answer.content == WEIGHTS.read(0, WEIGHTS.size)
    assert hub.counters.bytes("cdn") <= 1024 * 1024, "a proof that the public repo has them"
    hub.counters.reset()
    answer = ask(cache, "anonymous", ("GET", f"/{public.id}/resolve/main/model.bin", {}))
    assert answer.content == WEIGHTS.read(0, WEIGHTS.size)
    assert hub.counters.count(host="cdn") == 0
    answer = ask(cache, "anonymous", ("GET", f"/{private.id}/resolve/main/model.bin", {}))
    assert shows_nothing(answer)


class TestChanges:
    def test_a_revoked_right_ends_with_its_lifetime(
        self, cache: RunningCache, hub: FakeHub, repos: dict[str, Repo], clock: Clock
    ) -> None:
        repo = repos["private"]
        assert repo.head is not None
        for read in EVERY_READ.values():
            ask(cache, "reader", read(repo.id, repo.head.sha))
        reader = hub.accounts.identify("Bearer hf_reader")
        assert reader is not None
        reader.reads.discard(repo.id)
        clock.advance(61)
        for name, read in EVERY_READ.items():
            assert shows_nothing(ask(cache, "reader", read(repo.id, repo.head.sha))), name
        hub.pause()
        for name, read in EVERY_READ.items():
            assert shows_nothing(ask(cache, "reader", read(repo.id, repo.head.sha))), name

    def test_a_revoked_token_ends_with_its_lifetime(
        self, cache: RunningCache, hub: FakeHub, repos: dict[str, Repo], clock: Clock
    ) -> None:
        repo = repos["public"]
        read = ("GET", f"/{repo.id}/resolve/main/{FILE}", {})
        assert ask(cache, "bob", read).status_code == 200
        hub.accounts.revoke("hf_bob")
        clock.advance(61)
        answer = ask(cache, "bob", read)
        assert answer.status_code == 401
        assert "X-Error-Code" not in answer.headers

    @pytest.mark.parametrize("change", ["private", "gated"])
    def test_a_public_repo_that_closes(
        self,
        cache: RunningCache,
        hub: FakeHub,
        repos: dict[str, Repo],
        clock: Clock,
        change: str,
    ) -> None:
        repo = repos["public"]
        assert repo.head is not None
        reads = {**FILE_READS, **LIST_READS}
        for read in reads.values():
            ask(cache, "anonymous", read(repo.id, repo.head.sha))
        setattr(repo, change, True)
        clock.advance(61)
        for _ in range(2):
            for name, read in reads.items():
                answer = ask(cache, "anonymous", read(repo.id, repo.head.sha))
                assert shows_nothing(answer), name

    def test_a_private_repo_that_opens(
        self, cache: RunningCache, hub: FakeHub, repos: dict[str, Repo]
    ) -> None:
        repo = repos["private"]
        read = ("GET", f"/{repo.id}/resolve/main/{FILE}", {})
        assert ask(cache, "anonymous", read).status_code == 401
        repo.private = False
        assert ask(cache, "anonymous", read).content == SECRET, "a 401 is not kept"

    def test_a_missing_revision_ends_no_right(
        self, cache: RunningCache, hub: FakeHub, repos: dict[str, Repo]
    ) -> None:
        repo = repos["private"]
        read = ("GET", f"/{repo.id}/resolve/main/{FILE}", {})
        ask(cache, "reader", read)
        assert ask(cache, "reader", ("GET", f"/{repo.id}/resolve/no/x", {})).status_code == 404
        assert (
            ask(cache, "reader", ("GET", f"/api/models/{repo.id}/tree/no", {})).status_code == 404
        )
        hub.counters.reset()
        assert ask(cache, "reader", read).content == SECRET
        assert hub.counters.requests == []

    def test_a_forgotten_token_opens_nothing(
        self, cache: RunningCache, repos: dict[str, Repo], hub: FakeHub
    ) -> None:
        store_token(cache)
        read = ("GET", f"/{repos['private'].id}/resolve/main/{FILE}", {})
        assert ask(cache, "owner", read).content == SECRET
        cache.service.tokens.forget("default")
        assert ask(cache, "owner", read).status_code == 401
        hub.pause()
        assert ask(cache, "owner", read).status_code == 521


class TestAccessModes:
    def use(self, cache: RunningCache, access: str) -> None:
        store_token(cache)
        distribution = cache.service.config.distributions()[0]
        cache.service.config.update_distribution(distribution.id, {"access": access})

    def test_shared_reads_with_the_stored_token(
        self, cache: RunningCache, hub: FakeHub, repos: dict[str, Repo]
    ) -> None:
        self.use(cache, "shared")
        for kind in ("private", "gated"):
            repo = repos[kind]
            read = ("GET", f"/{repo.id}/resolve/main/{FILE}", {})
            assert ask(cache, "anonymous", read).content == SECRET
            assert ask(cache, "owner", read).content == SECRET
            assert shows_nothing(ask(cache, "bob", read)), "an own token wins"

    def test_shared_does_not_lend_the_token_to_other_questions(
        self, cache: RunningCache, hub: FakeHub
    ) -> None:
        self.use(cache, "shared")
        for url in ("/api/whoami-v2", "/api/models?author=org", "/api/models/org/private/settings"):
            cache.get(url)
            cache.get(url, trusted=True)
        assert all(record.authorization is None for record in hub.counters.requests)

    def test_public_gives_out_what_everybody_may_read(
        self, cache: RunningCache, repos: dict[str, Repo]
    ) -> None:
        load_everything(cache, repos)
        self.use(cache, "public")
        everybody = [(caller, *one) for caller in CALLERS[:3] for one in repos.items()]
        for caller, kind, repo in [*everybody, *(("owner", *one) for one in repos.items())]:
            assert repo.head is not None
            for name, read in EVERY_READ.items():
                answer = ask(cache, caller, read(repo.id, repo.head.sha))
                if kind == "public":
                    assert answer.status_code == expected_status(name), name
                elif name not in PAGE_READS:
                    assert shows_nothing(answer), name

    def test_public_does_not_answer_a_bad_token(
        self, cache: RunningCache, repos: dict[str, Repo]
    ) -> None:
        self.use(cache, "public")
        repo = repos["public"]
        assert repo.head is not None
        for name, read in EVERY_READ.items():
            assert ask(cache, "bad", read(repo.id, repo.head.sha)).status_code == 401, name


class TestSharedServer:
    """A server of several people lends its stored token to nobody, and closes after a while."""

    @pytest.fixture
    def shared(self, tmp_path: Path, hub: FakeHub) -> Iterator[RunningCache]:
        with RunningCache(tmp_path, hub, single_user=False) as cache:
            store_token(cache)
            yield cache

    def test_a_trusted_caller_reads_with_their_own_right(
        self, shared: RunningCache, hub: FakeHub, repos: dict[str, Repo]
    ) -> None:
        read = ("GET", f"/{repos['private'].id}/resolve/main/{FILE}", {})
        assert ask(shared, "owner", read).status_code == 401
        assert all(record.authorization is None for record in hub.counters.requests)
        assert ask(shared, "reader", read).content == SECRET

    def test_private_content_closes_after_the_grace_time(
        self, shared: RunningCache, hub: FakeHub, repos: dict[str, Repo], clock: Clock
    ) -> None:
        private, public = repos["private"], repos["public"]
        assert private.head is not None
        for repo in (private, public):
            assert repo.head is not None
            for read in EVERY_READ.values():
                ask(shared, "reader", read(repo.id, repo.head.sha))
            ask(shared, "reader", ("GET", f"/{repo.id}/resolve/main/model.bin", {}))
        shared.wait_idle()
        hub.pause()
        clock.advance(3000)
        for name, read in EVERY_READ.items():
            answer = ask(shared, "reader", read(private.id, private.head.sha))
            assert answer.status_code == expected_status(name), name
        clock.advance(1000)
        for name, read in EVERY_READ.items():
            answer = ask(shared, "reader", read(private.id, private.head.sha))
            assert (answer.status_code, shows_nothing(answer)) == (521, True), name
        read = EVERY_READ["GET"](public.id, "")
        assert ask(shared, "anonymous", read).status_code == 521, "nobody asked as this identity"

    def test_public_content_stays_open(
        self, shared: RunningCache, hub: FakeHub, repos: dict[str, Repo], clock: Clock
    ) -> None:
        repo = repos["public"]
        assert repo.head is not None
        for read in EVERY_READ.values():
            ask(shared, "anonymous", read(repo.id, repo.head.sha))
        ask(shared, "anonymous", ("GET", f"/{repo.id}/resolve/main/model.bin", {}))
        shared.wait_idle()
        hub.pause()
        clock.advance(30 * 24 * 3600)
        for name, read in EVERY_READ.items():
            answer = ask(shared, "anonymous", read(repo.id, repo.head.sha))
            assert answer.status_code == expected_status(name), name


class TestNetwork:
    """Callers from anywhere read public content, whatever they bring."""

    @pytest.fixture
    def open_cache(
        self, tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[RunningCache]:
        identify = network.identify

        def from_afar(*args: object, **options: object) -> network.Sender:
            sender = identify(*args, **options)  # type: ignore[arg-type]
            return replace(sender, peer="192.0.2.7", client="192.0.2.7", same_machine=False)

        access = AccessOptions(allow_anonymous="network")
        with RunningCache(tmp_path, hub, access=access) as cache:
            store_token(cache)
            monkeypatch.setattr(handler.network, "identify", from_afar)
            yield cache

    @pytest.mark.parametrize("access", ["caller", "shared", "public"])
    def test_reads_public_content_only(
        self, open_cache: RunningCache, repos: dict[str, Repo], access: str
    ) -> None:
        distribution = open_cache.service.config.distributions()[0]
        open_cache.service.config.update_distribution(distribution.id, {"access": access})
        callers = [(caller, *one) for caller in ("anonymous", "reader") for one in repos.items()]
        for caller, kind, repo in callers:
            assert repo.head is not None
            for name, read in EVERY_READ.items():
                answer = ask(open_cache, caller, read(repo.id, repo.head.sha))
                if kind == "public":
                    assert answer.status_code == expected_status(name), (name, answer.text)
                elif name not in PAGE_READS:
                    assert shows_nothing(answer), name

    def test_a_bad_token_is_refused(self, open_cache: RunningCache, repos: dict[str, Repo]) -> None:
        repo = repos["public"]
        assert repo.head is not None
        for name, read in EVERY_READ.items():
            answer = ask(open_cache, "bad", read(repo.id, repo.head.sha))
            assert answer.status_code == 401, name

    def test_asks_nothing_else(self, open_cache: RunningCache, hub: FakeHub) -> None:
        for method, url in (
            ("GET", "/api/whoami-v2"),
            ("GET", "/api/models?author=org"),
            ("POST", "/api/repos/create"),
            ("GET", "/api/models/org/large/xet-read-token/main"),
        ):
            answer = ask(open_cache, "reader", (method, url, {}))
            assert answer.status_code in (401, 403), url
        assert hub.counters.requests == []
