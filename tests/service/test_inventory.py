"""What is kept, as people see it, and what deleting it frees."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from fake_hub import BigFile, FakeHub
from serving import RunningCache, lose

from jupyter_hf_cache.errors import NotFound, StorageError
from jupyter_hf_cache.service.inventory import Inventory
from jupyter_hf_cache.service.usage import NAMES, Usage
from jupyter_hf_cache.storage.records import RepoRef
from jupyter_hf_cache.storage.state import StateTable

MIB = 1 << 20
ONE, TWO = RepoRef("models", "org/one"), RepoRef("datasets", "org/two")
SHARED, OWN = BigFile(2 * MIB, seed=1), BigFile(MIB, seed=2)
CONFIG = b'{"a": 1}'


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        hub.repo("models", ONE.id).commit({"shared.bin": SHARED, "own.bin": OWN, "c.json": CONFIG})
        hub.repo("datasets", TWO.id).commit({"copy.bin": SHARED, "sub/c.json": CONFIG})
        yield hub


def load_all(cache: RunningCache) -> None:
    for path in (
        "/org/one/resolve/main/shared.bin",
        "/org/one/resolve/main/own.bin",
        "/org/one/resolve/main/c.json",
        "/datasets/org/two/resolve/main/copy.bin",
        "/datasets/org/two/resolve/main/sub/c.json",
    ):
        assert cache.get(path).status_code == 200
        cache.wait_idle()


@pytest.fixture
def loaded(cache: RunningCache) -> Inventory:
    load_all(cache)
    return cache.service.inventory


def kept_blobs(root: Path) -> int:
    blobs = root / "cache" / "blobs"
    return sum(1 for path in blobs.rglob("*") if path.is_file() and path.suffix != ".json")


class TestListing:
    def test_nothing_is_kept_at_first(self, cache: RunningCache) -> None:
        assert cache.service.inventory.repos() == []
        with pytest.raises(NotFound):
            cache.service.inventory.repo(ONE)

    def test_repos_come_last_used_first(self, loaded: Inventory, cache: RunningCache) -> None:
        assert [kept.repo for kept in loaded.repos()] == [TWO, ONE]
        cache.get("/org/one/resolve/main/own.bin")
        cache.service.budget.flush()
        assert [kept.repo for kept in loaded.repos()] == [ONE, TWO]

    def test_shared_bytes_are_marked(self, loaded: Inventory, hub: FakeHub) -> None:
        one = loaded.repo(ONE)
        assert {(f.path, f.size, f.shared_with) for f in one.files} == {
            ("shared.bin", 2 * MIB, 1),
            ("own.bin", MIB, 0),
            ("c.json", len(CONFIG), 1),
        }
        assert one.remote == "default"
        assert list(one.revisions) == ["main"]
        assert one.size == 3 * MIB + len(CONFIG)

    def test_equal_files_of_two_commits_count_once(
        self, loaded: Inventory, cache: RunningCache, hub: FakeHub
    ) -> None:
        repo = hub.catalogue.get("models", ONE.id)
        assert repo is not None
        commit = repo.commit({"new.txt": b"new"})
        assert cache.get(f"/org/one/resolve/{commit}/own.bin").status_code == 200
        one = loaded.repo(ONE)
        assert [f.path for f in one.files].count("own.bin") == 2
        assert one.size == 3 * MIB + len(CONFIG)

    def test_what_was_only_looked_at_is_not_kept(self, cache: RunningCache) -> None:
        assert cache.head("/org/one/resolve/main/own.bin").status_code == 200
        assert cache.service.inventory.repos() == []


class TestDeleting:
    def test_a_dry_run_says_what_the_real_one_does(
        self, loaded: Inventory, cache: RunningCache
    ) -> None:
        planned = loaded.delete(ONE, dry_run=True)
        assert kept_blobs(cache.root) == 3
        assert loaded.repo(ONE).size
        assert loaded.delete(ONE, dry_run=False) == planned
        assert (planned.freed, planned.kept_shared, planned.files) == (
            MIB,
            2 * MIB + len(CONFIG),
            3,
        )
        assert [kept.repo for kept in loaded.repos()] == [TWO]
        assert kept_blobs(cache.root) == 2
        assert {f.shared_with for f in loaded.repo(TWO).files} == {0}
        assert loaded.delete(TWO, dry_run=False).freed == 2 * MIB + len(CONFIG)
        assert kept_blobs(cache.root) == 0
        assert cache.service.budget.used() == 0
        with pytest.raises(NotFound):
            loaded.delete(TWO, dry_run=False)

    def test_what_somebody_reads_goes_too_and_frees_its_room_later(
        self, loaded: Inventory, cache: RunningCache, hub: FakeHub
    ) -> None:
        store = cache.service.store
        (blob,) = [one for one, size in store.blobs() if size == MIB]
        reader = store.open(blob)
        assert reader is not None
        gone = loaded.delete(ONE, dry_run=False)
        assert (gone.freed, gone.in_use) == (0, MIB)
        assert [kept.repo for kept in loaded.repos()] == [TWO]
        assert reader.read(0, MIB) == OWN.read(0, MIB)
        reader.close()
        hub.counters.reset()
        assert cache.get("/org/one/resolve/main/own.bin").content == OWN.read(0, MIB)
        assert hub.counters.bytes("cdn") == MIB, "it is not kept any more"

    def test_a_deleted_repo_is_fetched_anew(
        self, loaded: Inventory, cache: RunningCache, hub: FakeHub
    ) -> None:
        loaded.delete(ONE, dry_run=False)
        hub.counters.reset()
        assert cache.get("/org/one/resolve/main/own.bin").content == OWN.read(0, MIB)
        assert hub.counters.bytes("cdn") == MIB
        cache.wait_idle()
        assert [f.path for f in loaded.repo(ONE).files] == ["own.bin"]

    def test_it_does_not_come_back_when_tables_are_lost(self, tmp_path: Path, hub: FakeHub) -> None:
        with RunningCache(tmp_path, hub) as cache:
            load_all(cache)
            cache.service.inventory.delete(ONE, dry_run=False)
        lose(tmp_path / "cache" / "state")
        with RunningCache(tmp_path, hub) as again:
            assert ONE not in [kept.repo for kept in again.service.inventory.repos()]

    def test_a_repo_of_two_remotes_goes_wholly(self, cache: RunningCache) -> None:
        with FakeHub() as mirror:
            mirror.repo("models", ONE.id).commit({"own.bin": OWN, "c.json": CONFIG})
            remote = cache.service.config.create_remote({"name": "mirror", "url": mirror.url})
            cache.service.config.create_distribution(
                {"name": "mirror", "base_path": "mirror", "remote": remote.id}
            )
            cache.get("/org/one/resolve/main/own.bin")
            cache.get("/org/one/resolve/main/c.json")
            for file in ("own.bin", "c.json"):
                url = f"/org/one/resolve/main/{file}"
                at_mirror = cache.endpoint.removesuffix("hf") + "mirror" + url
                assert requests.get(at_mirror, timeout=30).status_code == 200
                cache.wait_idle()
        inventory = cache.service.inventory
        assert len(inventory.repos()) == 2
        gone = inventory.delete(ONE, dry_run=True)
        assert inventory.delete(ONE, dry_run=False) == gone
        assert gone.freed == MIB + 2 * len(CONFIG)
        assert inventory.repos() == []
        assert kept_blobs(cache.root) == 0


class TestRebuilding:
    def test_lost_tables_are_made_again_from_what_lies_beside_the_blobs(
        self, tmp_path: Path, hub: FakeHub
    ) -> None:
        with RunningCache(tmp_path, hub) as cache:
            load_all(cache)
            (before,) = [k for k in cache.service.inventory.repos() if k.repo == ONE]
        lose(tmp_path / "cache" / "state")
        with RunningCache(tmp_path, hub) as again:
            after = again.service.inventory.repo(ONE)
            assert {f.path for f in after.files} == {f.path for f in before.files}
            assert again.service.budget.used() == 3 * MIB + len(CONFIG)
            hub.counters.reset()
            answer = again.get(f"/org/one/resolve/{before.files[0].commit}/own.bin")
            assert answer.content == OWN.read(0, MIB)
            assert hub.counters.count(host="cdn") == 0

    @pytest.mark.parametrize("claims", ['[["short"]]', "5", '"text"', "[[1,2,3,4,5,6]]"])
    def test_a_spoilt_sidecar_costs_its_blob_and_nothing_else(
        self, tmp_path: Path, hub: FakeHub, claims: str
    ) -> None:
        with RunningCache(tmp_path, hub) as cache:
            load_all(cache)
        lose(tmp_path / "cache" / "state")
        (sidecar,) = (tmp_path / "cache" / "blobs").rglob(f"{OWN.sha256()}.json")
        sidecar.write_text(
            f'{{"size": {MIB}, "sha256": "x", "origins": [], "claims": {claims}, "created": 0}}'
        )
        with RunningCache(tmp_path, hub) as again:
            assert kept_blobs(tmp_path) == 2
            assert "own.bin" not in {f.path for f in again.service.inventory.repo(ONE).files}


class TestUsage:
    @pytest.fixture
    def table(self, tmp_path: Path) -> Iterator[StateTable]:
        table = StateTable(tmp_path / "usage")
        yield table
        table.close()

    def test_it_survives_a_restart(self, table: StateTable) -> None:
        usage = Usage(table)
        usage.hit(10)
        usage.hit(5)
        usage.miss(20)
        usage.fetched(7)
        usage.asked()
        usage.saved_call()
        counted = {
            **dict.fromkeys(NAMES, 0),
            "hits": 2,
            "misses": 1,
            "bytes_served": 35,
            "bytes_from_cache": 15,
            "bytes_from_upstream": 7,
            "calls_made": 1,
            "calls_saved": 1,
        }
        assert usage.today() == counted
        usage.flush()
        usage.flush()
        assert usage.today() == Usage(table).today() == counted

    def test_two_processes_add_up(self, table: StateTable) -> None:
        one, two = Usage(table), Usage(table)
        one.hit(1)
        two.hit(2)
        one.flush()
        two.flush()
        assert one.today()["bytes_from_cache"] == 3

    def test_a_disk_that_refuses_does_not_refuse_answers(
        self, table: StateTable, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usage = Usage(table)

        def refuse(*_: object) -> None:
            raise StorageError("full")

        with monkeypatch.context() as patch:
            patch.setattr(table, "update", refuse)
            patch.setattr("jupyter_hf_cache.service.usage._FLUSH_SECONDS", -1.0)
            usage.hit(1)
        usage.flush()
        assert usage.today()["hits"] == 1
