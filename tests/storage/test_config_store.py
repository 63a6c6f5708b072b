"""Remotes, distributions and tasks on disk."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jupyter_hf_cache.errors import NotFound
from jupyter_hf_cache.storage import tasks as tasks_module
from jupyter_hf_cache.storage.config_snapshot import Changed
from jupyter_hf_cache.storage.config_store import ConfigConflict, ConfigStore
from jupyter_hf_cache.storage.generations import Generations
from jupyter_hf_cache.storage.records import Remote
from jupyter_hf_cache.storage.secrets import SecretBox
from jupyter_hf_cache.storage.state import StateTable

KEY = b"k" * 32
HUB = "https://huggingface.co"
SECRETS = {
    "hf_token": "hf_SECRETSECRET0",
    "client_key": "SECRETSECRET1",
    "proxy_username": "SECRETSECRET2",
    "proxy_password": "SECRETSECRET3",
    "username": "SECRETSECRET4",
    "password": "SECRETSECRET5",
    "headers": [{"X-Key": "SECRETSECRET6"}],
}

Open = Callable[..., ConfigStore]


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Open]:
    tables: list[StateTable] = []

    def open_it(key: bytes = KEY) -> ConfigStore:
        table = StateTable(tmp_path / "state" / "config")
        tables.append(table)
        counters = Generations(tmp_path / "generations")
        return ConfigStore(table, SecretBox(key), tmp_path / "config-copy.json", counters)

    yield open_it
    for table in tables:
        table.close()


@pytest.fixture
def store(open_store: Open) -> ConfigStore:
    return open_store()


def bytes_below(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


def test_a_remote_is_kept_with_all_its_fields(store: ConfigStore, open_store: Open) -> None:
    remote = store.create_remote(
        {"name": "r", "url": HUB, "pulp_labels": {"a": None}, "total_timeout": 1.5, **SECRETS}
    )
    assert remote.hf_token == "hf_SECRETSECRET0"
    assert remote.created == remote.updated
    assert store.remote(remote.id) == remote
    assert open_store().remotes() == [remote]


def test_no_secret_lies_on_disk_in_clear(store: ConfigStore, tmp_path: Path) -> None:
    remote = store.create_remote({"name": "r", "url": HUB, **SECRETS})
    store.update_remote(remote.id, {"hf_token": "hf_SECRETSECRET7"})
    content = bytes_below(tmp_path)
    assert b"X-Key" in content
    assert b"SECRETSECRET" not in content


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_only_the_owner_may_read_the_copy(store: ConfigStore, tmp_path: Path) -> None:
    store.create_remote({"name": "r", "url": HUB})
    assert stat.S_IMODE((tmp_path / "config-copy.json").stat().st_mode) == 0o600


def test_an_update_changes_the_given_fields_and_the_time(store: ConfigStore) -> None:
    before = store.create_remote({"name": "r", "url": HUB, **SECRETS})
    after = store.update_remote(before.id, {"policy": "streamed"})
    assert after.updated > before.updated
    assert after == replace(before, policy="streamed", updated=after.updated)
    assert store.remote(before.id) == after


def test_a_function_makes_the_change_from_the_present_record(store: ConfigStore) -> None:
    remote = store.create_remote({"name": "r", "url": HUB, "pulp_labels": {"a": "1"}})

    def relabel(present: Remote) -> dict[str, Any]:
        return {"pulp_labels": {**present.pulp_labels, "b": "2"}}

    assert store.update_remote(remote.id, relabel).pulp_labels == {"a": "1", "b": "2"}


def test_a_change_that_raises_leaves_everything_as_it_was(store: ConfigStore) -> None:
    remote = store.create_remote({"name": "r", "url": HUB})
    generation = store.generation

    def refuse(present: Remote) -> dict[str, Any]:
        raise ConfigConflict("key", "no")

    with pytest.raises(ConfigConflict):
        store.update_remote(remote.id, refuse)
    assert (store.remote(remote.id), store.generation) == (remote, generation)


@pytest.mark.parametrize("kind", ["remote", "distribution"])
def test_what_does_not_exist_is_not_found(store: ConfigStore, kind: str) -> None:
    assert getattr(store, kind)("nothing") is None
    with pytest.raises(NotFound):
        getattr(store, f"update_{kind}")("nothing", {"name": "n"})
    with pytest.raises(NotFound):
        getattr(store, f"delete_{kind}")("nothing")


def test_names_are_unique_per_kind(store: ConfigStore) -> None:
    first = store.create_remote({"name": "one", "url": HUB})
    second = store.create_remote({"name": "two", "url": HUB})
    store.create_distribution({"name": "one", "base_path": "one"})
    with pytest.raises(ConfigConflict, match="must be unique") as raised:
        store.create_remote({"name": "one", "url": HUB})
    assert raised.value.field == "name"
    with pytest.raises(ConfigConflict):
        store.update_remote(second.id, {"name": "one"})
    store.update_remote(first.id, {"name": "one"})
    with pytest.raises(ConfigConflict):
        store.create_distribution({"name": "one", "base_path": "other"})


@pytest.mark.parametrize(
    ("existing", "wanted", "message"),
    [
        ("foo", "foo", "must be unique"),
        ("foo", "foo/bar", "Overlaps with existing distribution 'd'"),
        ("foo/bar", "foo", "Overlaps with existing distribution 'd'"),
        ("a/b/c", "a/b", "Overlaps"),
        ("foo", "foobar", None),
        ("foo/bar", "foo/baz", None),
        ("foo", "FOO", None),
    ],
)
def test_base_paths_do_not_overlap_by_whole_segments(
    store: ConfigStore, existing: str, wanted: str, message: str | None
) -> None:
    store.create_distribution({"name": "d", "base_path": existing})
    other = store.create_distribution({"name": "free", "base_path": "elsewhere"})
    if message is None:
        assert store.update_distribution(other.id, {"base_path": wanted}).base_path == wanted
        return
    with pytest.raises(ConfigConflict, match=message) as raised:
        store.update_distribution(other.id, {"base_path": wanted})
    assert raised.value.field == "base_path"
    with pytest.raises(ConfigConflict, match=message):
        store.create_distribution({"name": "e", "base_path": wanted})
    assert store.distribution(other.id) == other


def test_a_distribution_may_move_below_its_own_path(store: ConfigStore) -> None:
    one = store.create_distribution({"name": "d", "base_path": "foo"})
    assert store.update_distribution(one.id, {"base_path": "foo/bar"}).base_path == "foo/bar"


def test_of_eight_threads_with_overlapping_paths_one_wins(open_store: Open) -> None:
    stores = [open_store() for _ in range(8)]
    barrier = threading.Barrier(8)
    outcomes: list[str] = []

    def create(number: int) -> None:
        barrier.wait()
        try:
            stores[number].create_distribution(
                {"name": f"d{number}", "base_path": "/".join(["a"] * (number + 1))}
            )
            outcomes.append("won")
        except ConfigConflict:
            outcomes.append("refused")

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(outcomes) == ["refused"] * 7 + ["won"]
    assert len(open_store().distributions()) == 1


def test_of_stores_that_start_together_one_makes_the_defaults(open_store: Open) -> None:
    stores = [open_store() for _ in range(4)]
    barrier = threading.Barrier(4)
    created: list[bool] = []

    def start(store: ConfigStore) -> None:
        barrier.wait()
        created.append(
            store.create_first({"name": "default", "url": HUB}, {"name": "d", "base_path": "hf"})
        )

    threads = [threading.Thread(target=start, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(created) == [False, False, False, True]
    (remote,) = stores[0].remotes()
    assert [one.remote for one in open_store().distributions()] == [remote.id]


def test_a_distribution_needs_a_remote_that_exists(store: ConfigStore) -> None:
    with pytest.raises(ConfigConflict) as raised:
        store.create_distribution({"name": "d", "base_path": "d", "remote": "nothing"})
    assert raised.value.field == "remote"


def test_deleting_a_remote_leaves_its_distributions_without_one(store: ConfigStore) -> None:
    remote = store.create_remote({"name": "r", "url": HUB})
    other = store.create_remote({"name": "other", "url": HUB})
    mine = store.create_distribution({"name": "d", "base_path": "d", "remote": remote.id})
    theirs = store.create_distribution({"name": "e", "base_path": "e", "remote": other.id})
    store.delete_remote(remote.id)
    assert store.remotes() == [other]
    changed = store.distribution(mine.id)
    assert changed is not None
    assert changed.remote is None
    assert changed.updated > mine.updated
    assert store.distribution(theirs.id) == theirs


@pytest.mark.parametrize(
    ("path", "name", "rest"),
    [
        ("hf/org/m/resolve/main/a%20b", "one", "/org/m/resolve/main/a%20b"),
        ("hf", "one", ""),
        ("hf/", "one", "/"),
        ("%68f/x", "one", "/x"),
        ("team/a/x", "two", "/x"),
        ("mod%C3%A8les/x", "three", "/x"),
        ("hfx/org", None, None),
        ("team", None, None),
        ("team/b/x", None, None),
        ("team%2Fa/x", None, None),
        ("", None, None),
        ("/hf/x", None, None),
    ],
)
def test_a_content_path_finds_its_distribution(
    store: ConfigStore, path: str, name: str | None, rest: str | None
) -> None:
    for one, base_path in (("one", "hf"), ("two", "team/a"), ("three", "modèles")):
        store.create_distribution({"name": one, "base_path": base_path})
    found = store.match(path)
    assert (found and (found[0].name, found[1])) == (name and (name, rest))


def test_an_empty_store_matches_nothing(store: ConfigStore) -> None:
    assert store.match("hf/x") is None


def test_matching_does_not_touch_the_disk_while_the_snapshot_is_fresh(
    store: ConfigStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create_distribution({"name": "d", "base_path": "hf"})
    monkeypatch.setattr(time, "monotonic", lambda: store._checked + 0.4)

    def fail(*_: object) -> None:
        raise AssertionError("the disk was read")

    monkeypatch.setattr(StateTable, "get", fail)
    assert store.match("hf/x") is not None


def test_a_change_that_nobody_announced_is_found_and_announced(
    open_store: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, killed = open_store(), open_store()
    monkeypatch.setattr(Generations, "advance", lambda *_: None)
    killed.create_distribution({"name": "d", "base_path": "hf"})
    monkeypatch.undo()
    before = Generations(tmp_path / "generations").value("config")
    monkeypatch.setattr(time, "monotonic", lambda: store._checked + 0.6)
    assert store.match("hf/x") is not None
    assert Generations(tmp_path / "generations").value("config") > before


def test_every_change_raises_the_generation(store: ConfigStore) -> None:
    seen = [store.generation]
    remote = store.create_remote({"name": "r", "url": HUB})
    seen.append(store.generation)
    store.update_remote(remote.id, {"policy": "streamed"})
    seen.append(store.generation)
    store.delete_remote(remote.id)
    seen.append(store.generation)
    assert seen == sorted(set(seen))


def test_a_change_is_told_once_with_the_ids(store: ConfigStore) -> None:
    told: list[Changed] = []
    store.on_change = told.append
    remote = store.create_remote({"name": "r", "url": HUB})
    mine = store.create_distribution({"name": "d", "base_path": "d", "remote": remote.id})
    store.update_remote(remote.id, {"hf_token": "hf_new"})
    store.delete_remote(remote.id)
    nothing: frozenset[str] = frozenset()
    assert told == [
        Changed(frozenset({remote.id}), nothing),
        Changed(nothing, frozenset({mine.id})),
        Changed(frozenset({remote.id}), nothing),
        Changed(frozenset({remote.id}), frozenset({mine.id})),
    ]


def test_another_process_sees_the_change(store: ConfigStore, tmp_path: Path) -> None:
    told: list[Changed] = []
    store.on_change = told.append
    code = (
        "import sys, pathlib\n"
        "from jupyter_hf_cache.storage.config_store import ConfigStore\n"
        "from jupyter_hf_cache.storage.generations import Generations\n"
        "from jupyter_hf_cache.storage.secrets import SecretBox\n"
        "from jupyter_hf_cache.storage.state import StateTable\n"
        "root = pathlib.Path(sys.argv[1])\n"
        "table = StateTable(root / 'state' / 'config')\n"
        "counters = Generations(root / 'generations')\n"
        "copy = root / 'config-copy.json'\n"
        "store = ConfigStore(table, SecretBox(b'k' * 32), copy, counters)\n"
        "remote = store.create_remote({'name': 'r', 'url': 'https://a', 'hf_token': 'hf_x'})\n"
        "print(remote.id)\n"
        "table.close()\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    remote_id = answer.stdout.strip()
    found = store.remote(remote_id)
    assert found is not None
    assert found.hf_token == "hf_x"
    assert told == [Changed(frozenset({remote_id}), frozenset())]


def test_another_key_leaves_the_token_unread_and_says_so(open_store: Open) -> None:
    remote = open_store().create_remote({"name": "r", "url": HUB, **SECRETS})
    stranger = open_store(b"x" * 32)
    found = stranger.remote(remote.id)
    assert found is not None
    assert (found.name, found.hf_token, found.headers) == ("r", None, None)
    (problem,) = stranger.problems()
    assert "hf_token" in problem
    assert "'r'" in problem
    stranger.update_remote(remote.id, {"policy": "streamed"})
    again = open_store().remote(remote.id)
    assert again is not None
    assert (again.hf_token, again.policy) == ("hf_SECRETSECRET0", "streamed")


def test_a_new_token_ends_the_problem(open_store: Open) -> None:
    remote = open_store().create_remote({"name": "r", "url": HUB, "hf_token": "hf_a"})
    stranger = open_store(b"x" * 32)
    stranger.update_remote(remote.id, {"hf_token": "hf_b"})
    assert stranger.problems() == []
    assert [one.hf_token for one in stranger.remotes()] == ["hf_b"]


def fill(store: ConfigStore) -> None:
    remote = store.create_remote({"name": "r", "url": HUB, "hf_token": "hf_a"})
    store.create_distribution({"name": "d", "base_path": "hf", "remote": remote.id})


def test_a_corrupt_table_is_restored_from_the_copy(open_store: Open, tmp_path: Path) -> None:
    store = open_store()
    fill(store)
    remotes, generation = store.remotes(), store.generation
    store._table.close()
    for path in (tmp_path / "state" / "config").iterdir():
        path.write_bytes(b"this is no database" * 400)
    restored = open_store()
    assert restored.remotes() == remotes
    assert restored.match("hf/x") is not None
    assert restored.generation > generation
    assert any("restored" in problem for problem in restored.problems())
    assert open_store().problems() == []


def test_a_lost_table_is_restored_but_deleted_records_stay_deleted(
    open_store: Open, tmp_path: Path
) -> None:
    store = open_store()
    fill(store)
    store.delete_remote(store.remotes()[0].id)
    store._table.close()
    (tmp_path / "state" / "config").rename(tmp_path / "gone")
    restored = open_store()
    assert restored.remotes() == []
    assert [one.name for one in restored.distributions()] == ["d"]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"generation": 1}', '{"generation":1,"remotes":{"a":5}}']
)
def test_a_damaged_copy_is_put_aside_and_named(
    open_store: Open, tmp_path: Path, content: str
) -> None:
    (tmp_path / "config-copy.json").write_text(content)
    store = open_store()
    assert store.remotes() == []
    assert any("damaged" in problem for problem in store.problems())
    assert (tmp_path / "config-copy.json.damaged").read_text() == content


def test_a_corrupt_table_without_copy_starts_empty_and_says_so(
    open_store: Open, tmp_path: Path
) -> None:
    (tmp_path / "state" / "config").mkdir(parents=True)
    (tmp_path / "state" / "config" / "cache.db").write_bytes(b"this is no database" * 400)
    assert any("lost" in problem for problem in open_store().problems())


def test_a_copy_that_cannot_be_written_does_not_stop_a_change(
    open_store: Open, tmp_path: Path
) -> None:
    store = open_store()
    (tmp_path / "config-copy.json").mkdir()
    assert store.create_remote({"name": "r", "url": HUB}) in store.remotes()


def test_rows_of_a_newer_version_keep_what_this_one_does_not_know(
    store: ConfigStore, open_store: Open, tmp_path: Path
) -> None:
    remote = store.create_remote({"name": "r", "url": HUB})
    key = f"remote/{remote.id}"
    store._table.update(key, lambda row: {**row, "shininess": 3})
    later = open_store()
    later.update_remote(remote.id, {"policy": "streamed"})
    assert later._table.get(key)["shininess"] == 3
    copy = json.loads((tmp_path / "config-copy.json").read_text())
    assert copy["remotes"][remote.id]["shininess"] == 3


def test_the_newest_tasks_are_kept(store: ConfigStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks_module, "KEPT_TASKS", 5)
    moments = iter(range(1_000_000_000_000_000_000, 2_000_000_000_000_000_000, 5_000_000))
    monkeypatch.setattr(time, "time_ns", lambda: next(moments))
    tasks = [
        store.tasks.record("work", started="a", finished="b", created_resources=[f"/{number}/"])
        for number in range(8)
    ]
    assert store.tasks.all() == tasks[3:]
    assert store.tasks.get(tasks[0].id) is None
    assert store.tasks.get(tasks[7].id) == tasks[7]
    assert store.tasks.delete(tasks[7].id)
    assert not store.tasks.delete(tasks[7].id)


def test_a_task_does_not_raise_the_generation(store: ConfigStore) -> None:
    before = store.generation
    store.tasks.record("work", started="a", finished="b")
    assert store.generation == before
