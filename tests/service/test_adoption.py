"""Files that the user has already are taken over instead of being downloaded, and no byte of one
that was edited is ever given out."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import requests
import urllib3
from fake_hub import BigFile, FakeHub
from own_files import edit, git_sha1, place, place_shared, sha256
from serving import RunningCache

from jupyter_hf_cache.errors import StorageError
from jupyter_hf_cache.protocol.digests import Digest
from jupyter_hf_cache.storage.interface import BlobId
from jupyter_hf_cache.storage.linked import is_settled
from jupyter_hf_cache.storage.own_cache import OwnCopy
from jupyter_hf_cache.upstream import adopt

MIB = 1 << 20
FOLDER = "models--org--own"
BIG = BigFile(6 * MIB + 123, seed=7)
FILES = {
    "model.bin": BIG.read(0, BIG.size),
    "small.safetensors": b"w" * 20_000,
    "config.json": b'{"a": 1}' * 50,
}
ALL = sorted(FILES)
LARGE = ["model.bin", "small.safetensors"]


def url(name: str, repo: str = "org/own") -> str:
    return f"/{repo}/resolve/main/{name}"


def name_of(name: str) -> str:
    data = FILES[name]
    return git_sha1(data) if name.endswith(".json") else sha256(data)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The user's own cache, with every file in it."""
    hub = tmp_path / "home" / "hub"
    for name, data in FILES.items():
        os.utime(place(hub, FOLDER, name_of(name), data), (1, 1))
    return hub


@pytest.fixture
def start(tmp_path: Path, hub: FakeHub, home: Path) -> Iterator[Callable[..., RunningCache]]:
    """Starts caches that take over from `home`, one after the other on the same directories."""
    hub.repo("models", "org/own").commit({**FILES, "model.bin": BIG})
    running: list[RunningCache] = []

    def starter(**options: Any) -> RunningCache:
        for cache in running:
            cache.close()
        running[:] = [RunningCache(tmp_path, hub, **{"adopt_from": (home,), **options})]
        return running[0]

    yield starter
    for cache in running:
        cache.close()


@pytest.fixture
def cache(start: Callable[..., RunningCache]) -> RunningCache:
    return start()


def own_path(home: Path, name: str) -> Path:
    return home / FOLDER / "blobs" / name_of(name)


def body_bytes(hub: FakeHub) -> int:
    """Bytes of files that left the Hub."""
    files = sum(hub.counters.bytes("hub", f"resolve/main/{name}") for name in FILES)
    commits = sum(hub.counters.bytes("hub", f"/{name}") for name in FILES)
    return max(files, commits) + hub.counters.bytes("cdn")


def sidecars(cache: RunningCache) -> list[dict[str, Any]]:
    blobs = cache.root / "cache" / "blobs"
    return [json.loads(path.read_text()) for path in blobs.rglob("*.json")]


def nothing_is_left_over(cache: RunningCache) -> bool:
    left = [*(cache.root / "cache/partial").iterdir(), *(cache.root / "cache/quarantine").iterdir()]
    return [path for path in left if path.suffix != ".lock"] == []


def is_tainted(cache: RunningCache, name: str) -> bool:
    digest = Digest.from_etag(name_of(name))
    assert digest is not None
    origin = cache.service.config.remotes()[0].origin_id
    return cache.service.taints.is_tainted(BlobId.of(digest, origin))


class TestTakingOver:
    @pytest.mark.parametrize("name", ALL)
    def test_no_byte_comes_from_upstream(
        self, cache: RunningCache, hub: FakeHub, name: str
    ) -> None:
        answer = cache.get(url(name), trusted=True)
        assert answer.status_code == 200 and answer.content == FILES[name]
        cache.wait_idle()
        assert body_bytes(hub) == 0
        again = cache.get(url(name), trusted=True)
        assert again.content == FILES[name]
        assert again.headers["X-HF-Cache-Result"] == "hit"
        assert body_bytes(hub) == 0
        assert nothing_is_left_over(cache)

    @pytest.mark.parametrize("name", ALL)
    def test_it_is_kept_as_the_users_own_and_nobody_is_said_to_have_delivered_it(
        self, cache: RunningCache, name: str
    ) -> None:
        cache.get(url(name), trusted=True)
        cache.wait_idle()
        (sidecar,) = sidecars(cache)
        assert sidecar["own"] and sidecar["origins"] == []
        assert sidecar["sha256"] == sha256(FILES[name])
        assert [claim[2] for claim in sidecar["claims"]] == ["org/own"]

    def test_it_survives_a_restart_and_the_loss_of_the_users_file(
        self, start: Callable[..., RunningCache], hub: FakeHub, home: Path
    ) -> None:
        cache = start()
        cache.get(url("model.bin"), trusted=True)
        cache.wait_idle()
        own_path(home, "model.bin").unlink()
        cache = start()
        assert cache.get(url("model.bin"), trusted=True).content == FILES["model.bin"]
        assert body_bytes(hub) == 0

    def test_from_another_repo(self, cache: RunningCache, hub: FakeHub) -> None:
        hub.repo("models", "other/copy").commit({"model.bin": BIG})
        answer = cache.get(url("model.bin", "other/copy"), trusted=True)
        assert answer.content == FILES["model.bin"]
        assert hub.counters.bytes("cdn") == 0

    def test_from_the_folder_that_all_repos_share(
        self, cache: RunningCache, hub: FakeHub, home: Path
    ) -> None:
        own_path(home, "model.bin").unlink()
        place_shared(home, FOLDER, name_of("model.bin"), FILES["model.bin"])
        assert cache.get(url("model.bin"), trusted=True).content == FILES["model.bin"]
        assert body_bytes(hub) == 0

    @pytest.mark.parametrize("name", ALL)
    def test_a_part_is_answered_too(self, cache: RunningCache, hub: FakeHub, name: str) -> None:
        end = len(FILES[name])
        for value, part in (
            ("bytes=5-9", slice(5, 10)),
            (f"bytes={end - 7}-", slice(end - 7, end)),
        ):
            answer = cache.get(url(name), trusted=True, headers={"Range": value})
            assert answer.status_code == 206 and answer.content == FILES[name][part]
        cache.wait_idle()
        assert body_bytes(hub) == 0

    def test_many_at_once_make_one_copy(
        self, cache: RunningCache, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened: list[Path] = []
        original = OwnCopy.open

        def counted(copy: OwnCopy) -> int:
            opened.append(copy.path)
            return original(copy)

        monkeypatch.setattr(OwnCopy, "open", counted)
        with ThreadPoolExecutor(12) as pool:
            bodies = list(
                pool.map(lambda _: cache.get(url("model.bin"), trusted=True).content, range(12))
            )
        assert all(body == FILES["model.bin"] for body in bodies)
        assert len(opened) == 1 and body_bytes(hub) == 0

    @pytest.mark.parametrize("options", [{"adopt_from": ()}, {"single_user": False}])
    def test_only_where_it_is_on_and_the_server_has_one_user(
        self, start: Callable[..., RunningCache], hub: FakeHub, options: dict[str, Any]
    ) -> None:
        cache = start(**options)
        assert cache.get(url("model.bin"), trusted=True).content == FILES["model.bin"]
        assert hub.counters.bytes("cdn") == BIG.size

    def test_what_it_saved_is_counted(self, cache: RunningCache) -> None:
        cache.get(url("model.bin"), trusted=True)
        cache.wait_idle()
        today = cache.service.usage.today()
        assert today["bytes_adopted"] == BIG.size and today["adopted"] == 1
        assert today["bytes_from_upstream"] == 0


class TestEdits:
    @pytest.mark.parametrize("name", ALL)
    def test_afterwards_the_original_is_served(
        self, start: Callable[..., RunningCache], hub: FakeHub, home: Path, name: str
    ) -> None:
        cache = start()
        assert cache.get(url(name), trusted=True).content == FILES[name]
        cache.wait_idle()
        edit(own_path(home, name), b"EDITED")
        assert cache.get(url(name), trusted=True).content == FILES[name]
        cache = start()
        assert cache.get(url(name), trusted=True).content == FILES[name]
        assert body_bytes(hub) == 0

    @pytest.mark.parametrize("name", ALL)
    def test_before_it_is_downloaded_and_nobody_is_blamed(
        self, cache: RunningCache, hub: FakeHub, home: Path, name: str
    ) -> None:
        edit(own_path(home, name), b"!", at=len(FILES[name]) - 1)
        answer = cache.get(url(name), trusted=True)
        assert answer.status_code == 200 and answer.content == FILES[name]
        cache.wait_idle()
        assert body_bytes(hub) >= len(FILES[name])
        assert nothing_is_left_over(cache) and not is_tainted(cache, name)
        (sidecar,) = sidecars(cache)
        assert not sidecar["own"] and len(sidecar["origins"]) == 1

    def test_while_it_is_copied(
        self, cache: RunningCache, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path, original = own_path(home, "model.bin"), adopt._Digests.update

        def edited_meanwhile(self: Any, data: memoryview) -> None:
            original(self, data)
            edit(path, b"EDITED" * 100, at=5 * MIB)

        monkeypatch.setattr(adopt._Digests, "update", edited_meanwhile)
        assert cache.get(url("model.bin"), trusted=True).content == FILES["model.bin"]
        cache.wait_idle()
        assert not is_tainted(cache, "model.bin")

    def test_an_edited_file_is_not_hashed_twice(
        self, start: Callable[..., RunningCache], home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened: list[Path] = []
        original = OwnCopy.open
        monkeypatch.setattr(
            OwnCopy, "open", lambda copy: (opened.append(copy.path), original(copy))[1]
        )
        cache = start(cache_size_limit=1_000_000)
        edit(own_path(home, "model.bin"), b"!")
        for _ in range(2):
            assert cache.get(url("small.safetensors"), trusted=True).status_code == 200
            assert cache.get(url("model.bin"), trusted=True).content == FILES["model.bin"]
            cache.wait_idle()
        assert opened.count(own_path(home, "model.bin")) <= 1


class TestWhoMayHaveIt:
    def test_a_stranger_on_this_machine_is_given_what_the_upstream_delivers(
        self, cache: RunningCache, hub: FakeHub
    ) -> None:
        assert cache.get(url("model.bin")).content == FILES["model.bin"]
        cache.wait_idle()
        assert hub.counters.bytes("cdn") == BIG.size
        (sidecar,) = sidecars(cache)
        assert not sidecar["own"]

    @pytest.mark.parametrize("name", ALL)
    def test_a_stranger_has_to_wait_for_a_proof(
        self, cache: RunningCache, hub: FakeHub, name: str
    ) -> None:
        cache.get(url(name), trusted=True)
        cache.wait_idle()
        assert cache.get(url(name)).content == FILES[name]
        assert min(len(FILES[name]), MIB) <= body_bytes(hub) < 2 * MIB
        (sidecar,) = sidecars(cache)
        assert sidecar["own"] and len(sidecar["origins"]) == 1
        hub.counters.reset()
        assert cache.get(url(name)).content == FILES[name]
        assert body_bytes(hub) == 0

    def test_a_made_up_claim_opens_it_to_nobody_else(
        self, cache: RunningCache, hub: FakeHub
    ) -> None:
        """A repo that names the digest of the user's file, and does not have it."""
        hub.fault("swap", "", host="cdn", times=None)
        hub.repo("models", "evil/claim").commit({"model.bin": BIG})
        answer = cache.get(url("model.bin", "evil/claim"), trusted=True)
        assert answer.content == FILES["model.bin"], "their own file, for the user"
        cache.wait_idle()
        for value in ({}, {"Range": "bytes=0-"}, {"Range": "bytes=0-99"}):
            stranger = cache.get(url("model.bin", "evil/claim"), headers=value)
            assert stranger.status_code >= 400 and FILES["model.bin"][:16] not in stranger.content

    def test_a_stranger_who_comes_meanwhile_gets_nothing_of_it(
        self, cache: RunningCache, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        verified, go = Event(), Event()
        original = adopt.verified_copy

        def held(*arguments: Any) -> Any:
            copy = original(*arguments)
            verified.set()
            assert go.wait(30)
            return copy

        monkeypatch.setattr(adopt, "verified_copy", held)
        monkeypatch.setattr(adopt, "HOLD_SECONDS", 60.0)
        with ThreadPoolExecutor(1) as pool:
            users = pool.submit(cache.get, url("model.bin"), trusted=True)
            assert verified.wait(30)
            stranger = cache.get(url("model.bin"))
            assert stranger.content == FILES["model.bin"]
            assert hub.counters.bytes("cdn") == BIG.size
            assert not users.done()
            go.set()
            assert users.result().content == FILES["model.bin"]
        assert hub.counters.bytes("cdn") == BIG.size


class TestWhatGoesWrong:
    def test_a_slow_copy_is_not_waited_for(
        self, cache: RunningCache, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, slowly: Event
    ) -> None:
        answer = cache.get(url("model.bin"), trusted=True)
        assert answer.content == FILES["model.bin"]
        assert hub.counters.bytes("cdn") == BIG.size
        slowly.set()
        cache.wait_until(lambda: nothing_is_left_over(cache))
        (sidecar,) = sidecars(cache)
        assert not sidecar["own"]

    @pytest.fixture
    def slowly(self, monkeypatch: pytest.MonkeyPatch) -> Event:
        """Copies that take longer than anybody waits, until it is set."""
        monkeypatch.setattr(adopt, "HOLD_SECONDS", 0.2)
        original, go = adopt._Digests.update, Event()

        def slow(self: Any, data: memoryview) -> None:
            assert go.wait(60)
            original(self, data)

        monkeypatch.setattr(adopt._Digests, "update", slow)
        return go

    def test_it_spares_what_is_left_of_the_download(
        self, cache: RunningCache, hub: FakeHub, slowly: Event
    ) -> None:
        hub.fault("stall", "", host="cdn", at=2 * MIB, times=None)
        with requests.get(cache.trusted + url("model.bin"), stream=True, timeout=60) as answer:
            first = answer.raw.read(MIB)
            assert hub.faults.wait_until_stalled()
            slowly.set()
            assert first + answer.raw.read() == FILES["model.bin"]
        cache.wait_idle()
        hub.faults.clear()
        # A second connection may have begun while the first stood still.
        assert hub.counters.bytes("cdn") < BIG.size
        (sidecar,) = sidecars(cache)
        assert sidecar["own"] and sidecar["origins"] == []
        today = cache.service.usage.today()
        assert today["bytes_adopted"] + today["bytes_from_upstream"] == BIG.size
        assert today["bytes_from_upstream"] >= MIB

    def test_it_completes_no_damaged_beginning(
        self, cache: RunningCache, hub: FakeHub, slowly: Event
    ) -> None:
        hub.fault("corrupt", "", host="cdn", at=17)
        hub.fault("stall", "", host="cdn", at=2 * MIB)
        with requests.get(cache.trusted + url("model.bin"), stream=True, timeout=60) as answer:
            first = answer.raw.read(MIB)
            damaged = first != FILES["model.bin"][:MIB]
            assert hub.faults.wait_until_stalled()
            slowly.set()
            hub.faults.release()
            try:
                rest = answer.raw.read()
            except (requests.RequestException, urllib3.exceptions.HTTPError):
                rest = b""
        assert damaged and len(first) + len(rest) < BIG.size
        cache.wait_idle()
        assert is_tainted(cache, "model.bin")

    def test_a_stranger_who_joins_the_download_gets_only_what_is_delivered(
        self, cache: RunningCache, hub: FakeHub, slowly: Event
    ) -> None:
        hub.fault("stall", "", host="cdn", at=2 * MIB)
        with ThreadPoolExecutor(2) as pool:
            user = pool.submit(cache.get, url("model.bin"), trusted=True)
            assert hub.faults.wait_until_stalled()
            stranger = pool.submit(cache.get, url("model.bin"))
            fill = cache.service.fills.reports
            cache.wait_until(lambda: fill()[0].readers == 2)
            slowly.set()
            hub.faults.release()
            assert user.result().content == stranger.result().content == FILES["model.bin"]
        assert hub.counters.bytes("cdn") >= BIG.size
        cache.wait_idle()
        (sidecar,) = sidecars(cache)
        assert not sidecar["own"]

    def test_without_room_for_both_it_is_downloaded(
        self, start: Callable[..., RunningCache], hub: FakeHub, slowly: Event
    ) -> None:
        cache = start(cache_size_limit=8 * MIB)
        assert cache.get(url("model.bin"), trusted=True).content == FILES["model.bin"]
        assert hub.counters.bytes("cdn") == BIG.size
        slowly.set()
        cache.wait_until(lambda: nothing_is_left_over(cache))

    @pytest.mark.parametrize("error", [errno.EACCES, errno.EIO, errno.ENOENT, errno.ESTALE])
    def test_a_copy_that_cannot_be_read_is_downloaded(
        self, cache: RunningCache, monkeypatch: pytest.MonkeyPatch, error: int
    ) -> None:
        def refused(copy: OwnCopy) -> int:
            raise OSError(error, os.strerror(error))

        monkeypatch.setattr(OwnCopy, "open", refused)
        for name in ALL:
            assert cache.get(url(name), trusted=True).content == FILES[name]

    def test_a_full_disk_while_copying_is_no_error(
        self, cache: RunningCache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("jupyter_hf_cache.storage.staged.Staged.write", full)
        assert cache.get(url("model.bin"), trusted=True).content == FILES["model.bin"]
        cache.wait_idle()
        assert nothing_is_left_over(cache)

    def test_what_a_killed_copy_left_is_gone_after_a_restart(
        self, start: Callable[..., RunningCache]
    ) -> None:
        cache = start()
        left = cache.root / "cache/partial" / f"sha256-{name_of('model.bin')}.own"
        left.write_bytes(b"x" * MIB)
        cache = start()
        cache.wait_until(lambda: not left.exists())

    def test_stopping_does_not_wait_for_a_copy(
        self, start: Callable[..., RunningCache], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache, begun = start(), Event()
        original = adopt._Digests.update

        def seen(self: Any, data: memoryview) -> None:
            begun.set()
            original(self, data)

        monkeypatch.setattr(adopt._Digests, "update", seen)
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(cache.get, url("model.bin"), trusted=True)
            assert begun.wait(30)
            start()
            assert answer.exception() is not None or answer.result().content in (
                FILES["model.bin"],
                answer.result().content if answer.result().status_code != 200 else b"",
            )


class TestOffline:
    @pytest.fixture
    def known(self, cache: RunningCache, hub: FakeHub) -> RunningCache:
        """The claims are known, the bytes are not, and the Hub is gone."""
        for name in ALL:
            assert cache.head(url(name), trusted=True).status_code == 200
        hub.pause()
        return cache

    @pytest.mark.parametrize("name", ALL)
    def test_what_the_user_has_is_served(
        self, known: RunningCache, hub: FakeHub, name: str
    ) -> None:
        assert known.get(url(name), trusted=True).content == FILES[name]
        part = known.get(url(name), trusted=True, headers={"Range": "bytes=3-5"})
        assert part.status_code == 206 and part.content == FILES[name][3:6]

    def test_also_when_it_takes_long(
        self, known: RunningCache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(adopt, "HOLD_SECONDS", 0.05)
        original, waited = adopt._Digests.update, Event()

        def slow(self: Any, data: memoryview) -> None:
            waited.wait(1)
            original(self, data)

        monkeypatch.setattr(adopt._Digests, "update", slow)
        assert known.get(url("model.bin"), trusted=True).content == FILES["model.bin"]

    def test_with_the_cache_set_offline(self, start: Callable[..., RunningCache]) -> None:
        cache = start()
        for name in ALL:
            cache.head(url(name), trusted=True)
        cache = start(offline=True)
        for name in ALL:
            assert cache.get(url(name), trusted=True).content == FILES[name]

    def test_an_edited_file_is_an_error_and_no_byte_of_it_is_sent(
        self, known: RunningCache, home: Path
    ) -> None:
        edit(own_path(home, "model.bin"), b"EDITED")
        for _ in range(2):
            answer = known.get(url("model.bin"), trusted=True)
            assert answer.status_code >= 400 and b"EDITED" not in answer.content

    def test_a_stranger_gets_nothing(self, known: RunningCache) -> None:
        assert known.get(url("model.bin")).status_code >= 400
        known.get(url("model.bin"), trusted=True)
        known.wait_idle()
        assert known.get(url("model.bin")).status_code >= 400


class TestLinks:
    @pytest.fixture
    def linking(self, start: Callable[..., RunningCache], home: Path) -> RunningCache:
        """A cache that links, from files that nobody has touched lately."""
        path = own_path(home, "model.bin")
        cache = start(adopt_by_link=True)
        cache.wait_until(lambda: is_settled(path.lstat()))
        return cache

    @staticmethod
    def links(cache: RunningCache) -> list[Path]:
        folder = cache.root / "cache/linked"
        found = folder.iterdir() if folder.is_dir() else []
        return [path for path in found if path.suffix != ".json"]

    def linked(self, cache: RunningCache, hub: FakeHub) -> Path:
        assert cache.get(url("model.bin"), trusted=True).content == FILES["model.bin"]
        cache.wait_idle()
        assert body_bytes(hub) == 0
        (link,) = self.links(cache)
        return link

    def test_a_large_file_is_linked_and_takes_no_room(
        self, linking: RunningCache, hub: FakeHub, home: Path
    ) -> None:
        before = linking.service.budget.used()
        link = self.linked(linking, hub)
        assert link.samefile(own_path(home, "model.bin"))
        assert linking.service.budget.used() == before
        again = linking.get(url("model.bin"), trusted=True)
        assert again.content == FILES["model.bin"]
        assert again.headers["X-HF-Cache-Result"] == "hit"
        part = linking.get(url("model.bin"), trusted=True, headers={"Range": "bytes=7-99"})
        assert part.content == FILES["model.bin"][7:100]
        assert linking.service.usage.today()["adopted"] == 1
        assert nothing_is_left_over(linking)

    def test_a_small_file_is_copied(self, linking: RunningCache, home: Path) -> None:
        for name in ("small.safetensors", "config.json"):
            assert linking.get(url(name), trusted=True).content == FILES[name]
        linking.wait_idle()
        assert self.links(linking) == []

    def test_the_mode_of_the_users_file_stays(
        self, linking: RunningCache, hub: FakeHub, home: Path
    ) -> None:
        mode = own_path(home, "model.bin").stat().st_mode
        self.linked(linking, hub)
        assert own_path(home, "model.bin").stat().st_mode == mode

    def test_a_file_that_changed_a_moment_ago_is_copied(
        self, start: Callable[..., RunningCache], home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("jupyter_hf_cache.upstream.adopt.is_settled", lambda info: False)
        cache = start(adopt_by_link=True)
        assert cache.get(url("model.bin"), trusted=True).content == FILES["model.bin"]
        cache.wait_idle()
        assert self.links(cache) == []
        assert own_path(home, "model.bin").stat().st_nlink == 1

    @pytest.mark.parametrize("at", [0, 3 * MIB, BIG.size - 1])
    def test_an_edit_is_never_served(
        self, linking: RunningCache, hub: FakeHub, home: Path, at: int
    ) -> None:
        self.linked(linking, hub)
        edit(own_path(home, "model.bin"), b"!", at=at)
        answer = linking.get(url("model.bin"), trusted=True)
        assert answer.status_code == 200 and answer.content == FILES["model.bin"]
        assert hub.counters.bytes("cdn") == BIG.size
        linking.wait_idle()
        assert self.links(linking) == [] and not is_tainted(linking, "model.bin")

    def test_nor_after_a_restart_even_with_the_old_time_on_it(
        self, start: Callable[..., RunningCache], linking: RunningCache, hub: FakeHub, home: Path
    ) -> None:
        self.linked(linking, hub)
        path = own_path(home, "model.bin")
        edit(path, b"EDITED")
        os.utime(path, (1, 1))
        cache = start(adopt_by_link=True)
        assert cache.get(url("model.bin"), trusted=True).content == FILES["model.bin"]

    def test_an_edit_breaks_an_answer_that_is_being_sent(
        self, linking: RunningCache, hub: FakeHub, home: Path
    ) -> None:
        self.linked(linking, hub)
        blob = BlobId(Digest("sha256", name_of("model.bin")))
        reader = linking.service.store.open(blob)
        assert reader is not None and reader.fileno() is None
        assert reader.read(0, 100) == FILES["model.bin"][:100]
        edit(own_path(home, "model.bin"), b"EDITED", at=4 * MIB)
        for offset in (0, 4 * MIB):
            with pytest.raises(StorageError):
                reader.read(offset, 100)
        reader.close()

    def test_a_file_that_the_user_deleted_is_let_go_of(
        self, start: Callable[..., RunningCache], linking: RunningCache, hub: FakeHub, home: Path
    ) -> None:
        self.linked(linking, hub)
        own_path(home, "model.bin").unlink()
        cache = start(adopt_by_link=True)
        cache.wait_until(lambda: self.links(cache) == [])
        assert cache.get(url("model.bin"), trusted=True).content == FILES["model.bin"]

    def test_it_survives_a_restart(
        self, start: Callable[..., RunningCache], linking: RunningCache, hub: FakeHub
    ) -> None:
        self.linked(linking, hub)
        cache = start(adopt_by_link=True)
        assert cache.get(url("model.bin"), trusted=True).content == FILES["model.bin"]
        assert body_bytes(hub) == 0 and len(self.links(cache)) == 1

    def test_a_stranger_has_to_wait_for_a_proof(self, linking: RunningCache, hub: FakeHub) -> None:
        self.linked(linking, hub)
        assert linking.get(url("model.bin")).content == FILES["model.bin"]
        assert MIB <= hub.counters.bytes("cdn") < 2 * MIB

    def test_deleting_it_here_leaves_the_users_file(
        self, linking: RunningCache, hub: FakeHub, home: Path
    ) -> None:
        self.linked(linking, hub)
        blob = BlobId(Digest("sha256", name_of("model.bin")))
        assert linking.service.budget.forget(blob).freed == 0
        assert self.links(linking) == []
        assert own_path(home, "model.bin").read_bytes() == FILES["model.bin"]

    def test_offline(
        self, start: Callable[..., RunningCache], linking: RunningCache, hub: FakeHub
    ) -> None:
        linking.head(url("model.bin"), trusted=True)
        hub.pause()
        assert linking.get(url("model.bin"), trusted=True).content == FILES["model.bin"]
