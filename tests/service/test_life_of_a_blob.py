"""From absent to kept, through everything an upstream can do wrong on the way."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from fake_hub import BigFile, FakeHub
from serving import RunningCache

MIB = 1 << 20
SIZE = 6 * MIB + 123
BIG = BigFile(SIZE, seed=7)
URL = "/org/blob/resolve/main/model.bin"


@pytest.fixture(autouse=True)
def repo(hub: FakeHub) -> None:
    hub.repo("models", "org/blob").commit({"model.bin": BIG, "small.json": b'{"a": 1}'})


@pytest.fixture
def slow_line(hub: FakeHub) -> None:
    """So slow that a client has got a part long before the last byte is here."""
    hub.rate = 6 * MIB


def whole() -> bytes:
    return BIG.read(0, SIZE)


def kept_blobs(cache: RunningCache) -> list[Path]:
    blobs = cache.root / "cache" / "blobs"
    return [path for path in blobs.rglob("*") if path.is_file() and path.suffix != ".json"]


def test_second_download_takes_no_byte_from_upstream(cache: RunningCache, hub: FakeHub) -> None:
    assert cache.get(URL).content == whole()
    cache.wait_idle()
    hub.counters.reset()
    again = cache.get(URL)
    assert again.content == whole()
    assert again.headers["X-HF-Cache-Result"] == "hit"
    assert hub.counters.bytes() == 0
    assert hub.counters.count(host="cdn") == 0


def test_a_kept_blob_survives_a_restart(tmp_path: Path, hub: FakeHub) -> None:
    with RunningCache(tmp_path, hub) as cache:
        cache.get(URL)
        cache.wait_idle()
    hub.counters.reset()
    with RunningCache(tmp_path, hub) as cache:
        assert cache.get(URL).content == whole()
    assert hub.counters.count(host="cdn") == 0


def test_twenty_cold_clients_cost_one_transfer(cache: RunningCache, hub: FakeHub) -> None:
    with ThreadPoolExecutor(20) as pool:
        bodies = list(pool.map(lambda _: cache.get(URL).content, range(20)))
    assert all(body == whole() for body in bodies)
    assert hub.counters.bytes("cdn") == SIZE
    assert hub.counters.count(host="cdn") == 1


def test_first_bytes_arrive_while_the_rest_is_still_upstream(
    cache: RunningCache, hub: FakeHub
) -> None:
    hub.fault("stall", "", host="cdn", at=2 * MIB)
    with requests.get(cache.endpoint + URL, stream=True, timeout=30) as response:
        first = response.raw.read(MIB)
        assert first == whole()[:MIB]
        assert hub.faults.wait_until_stalled()
        hub.faults.release()
        assert first + response.raw.read() == whole()


@pytest.mark.parametrize("kind", ["cut", "short", "reset"])
@pytest.mark.parametrize("at", [0, 1, 3 * MIB, SIZE - 1])
def test_a_broken_transfer_is_resumed_unnoticed(
    cache: RunningCache, hub: FakeHub, kind: str, at: int
) -> None:
    hub.fault(kind, "", host="cdn", at=at)
    assert cache.get(URL).content == whole()
    # A reset discards what was on its way, and an answer of a wrong length is not read.
    assert hub.counters.bytes("cdn") < (SIZE + MIB if kind == "cut" else 2 * SIZE)


def test_an_expired_url_is_asked_for_again(cache: RunningCache, hub: FakeHub) -> None:
    hub.fault("cut", "", host="cdn", at=MIB)
    hub.fault("status", "", host="cdn", status=403, skip=1)
    assert cache.get(URL).content == whole()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_error_of_the_storage_is_retried(
    cache: RunningCache, hub: FakeHub, status: int
) -> None:
    hub.fault("status", "", host="cdn", status=status, times=2)
    assert cache.get(URL).content == whole()


def test_an_origin_that_ignores_ranges_is_read_from_the_start(
    cache: RunningCache, hub: FakeHub
) -> None:
    hub.fault("cut", "", host="cdn", at=2 * MIB)
    hub.fault("ignore_range", "", host="cdn", times=None, skip=1)
    assert cache.get(URL).content == whole()


def test_a_wrong_range_is_not_believed(cache: RunningCache, hub: FakeHub) -> None:
    hub.fault("cut", "", host="cdn", at=2 * MIB)
    hub.fault("wrong_range", "", host="cdn", at=MIB, skip=1)
    assert cache.get(URL).content == whole()


@pytest.mark.usefixtures("slow_line")
@pytest.mark.parametrize("at", [0, 3 * MIB, SIZE - 1])
def test_a_flipped_byte_never_reaches_a_complete_download(
    cache: RunningCache, hub: FakeHub, at: int
) -> None:
    hub.fault("corrupt", "", host="cdn", at=at)
    with pytest.raises(requests.exceptions.RequestException):
        cache.get(URL)
    cache.wait_idle()
    assert cache.get(URL).content == whole(), "the clean retry replaced it"
    assert [path.name for path in kept_blobs(cache)] == [BIG.sha256()]
    assert list((cache.root / "cache" / "quarantine").glob("*.json"))


def test_a_small_damaged_file_is_fetched_again_unnoticed(cache: RunningCache, hub: FakeHub) -> None:
    hub.fault("corrupt", "small.json", at=3)
    assert cache.get("/org/blob/resolve/main/small.json").content == b'{"a": 1}'


def test_what_stays_damaged_is_refused_and_never_kept(cache: RunningCache, hub: FakeHub) -> None:
    hub.fault("corrupt", "small.json", at=3, times=None)
    answer = cache.get("/org/blob/resolve/main/small.json")
    assert answer.status_code == 502
    assert "digest" in answer.headers["X-Error-Message"]
    assert kept_blobs(cache) == []


@pytest.mark.usefixtures("slow_line")
def test_a_swapped_file_is_not_kept(cache: RunningCache, hub: FakeHub) -> None:
    hub.fault("swap", "", host="cdn", times=None)
    with pytest.raises(requests.exceptions.RequestException):
        cache.get(URL)
    cache.wait_idle()
    assert kept_blobs(cache) == []


def test_a_login_page_is_not_taken_for_the_file(cache: RunningCache, hub: FakeHub) -> None:
    hub.fault("html", "", host="cdn", times=None)
    answer = cache.get(URL)
    assert answer.status_code == 521, "final: what a portal says is not asked for again"
    assert "web page" in answer.headers["X-Error-Message"]


@pytest.mark.usefixtures("slow_line")
class TestTaint:
    """After wrong bytes were given out, nobody may complete them."""

    @pytest.fixture
    def damaged(self, cache: RunningCache, hub: FakeHub) -> RunningCache:
        hub.fault("corrupt", "", host="cdn", at=0)
        with pytest.raises(requests.exceptions.RequestException):
            cache.get(URL)
        cache.wait_idle()
        return cache

    def test_a_resume_gets_the_whole_file(self, damaged: RunningCache) -> None:
        answer = damaged.get(URL, headers={"Range": f"bytes={4 * MIB}-"})
        assert (answer.status_code, answer.content) == (200, whole())

    def test_a_bounded_range_gets_an_error(self, damaged: RunningCache) -> None:
        answer = damaged.get(URL, headers={"Range": f"bytes={4 * MIB}-{5 * MIB}"})
        assert answer.status_code == 501

    def test_it_survives_a_restart(self, damaged: RunningCache, hub: FakeHub) -> None:
        with RunningCache(damaged.root, hub) as again:
            answer = again.get(URL, headers={"Range": f"bytes={4 * MIB}-"})
            assert answer.status_code == 200

    def test_damage_that_nobody_was_sent_leaves_no_taint(
        self, cache: RunningCache, hub: FakeHub
    ) -> None:
        hub.fault("corrupt", "", host="cdn", at=SIZE - 1)
        with pytest.raises(requests.exceptions.RequestException):
            cache.get(URL)
        cache.wait_idle()
        answer = cache.get(URL, headers={"Range": f"bytes={4 * MIB}-"})
        assert (answer.status_code, answer.content) == (206, whole()[4 * MIB :])


class TestRanges:
    def test_a_range_of_an_absent_file_fetches_only_what_is_needed(
        self, cache: RunningCache, hub: FakeHub
    ) -> None:
        answer = cache.get(URL, headers={"Range": f"bytes={SIZE - 1000}-{SIZE - 1}"})
        assert answer.status_code == 206
        assert answer.content == whole()[-1000:]
        assert answer.headers["Content-Range"] == f"bytes {SIZE - 1000}-{SIZE - 1}/{SIZE}"
        assert hub.counters.bytes("cdn") <= 2 * 256 * 1024

    def test_ranges_of_one_file_add_up_to_a_kept_blob(
        self, cache: RunningCache, hub: FakeHub
    ) -> None:
        step = 2 * MIB
        for start in reversed(range(0, SIZE, step)):
            end = min(start + step, SIZE)
            answer = cache.get(URL, headers={"Range": f"bytes={start}-{end - 1}"})
            assert answer.content == whole()[start:end]
        cache.wait_until(lambda: len(kept_blobs(cache)) == 1)
        hub.counters.reset()
        assert cache.get(URL).content == whole()
        assert hub.counters.count(host="cdn") == 0

    def test_a_resume_continues_what_is_there(self, cache: RunningCache) -> None:
        with requests.get(cache.endpoint + URL, stream=True, timeout=30) as response:
            start = response.raw.read(2 * MIB)
        rest = cache.get(URL, headers={"Range": f"bytes={2 * MIB}-"})
        assert rest.status_code == 206
        assert start + rest.content == whole()

    @pytest.mark.parametrize(
        ("value", "status", "body"),
        [
            ("bytes=0-0", 206, slice(0, 1)),
            ("bytes=-5", 206, slice(SIZE - 5, SIZE)),
            (f"bytes={SIZE - 1}-", 206, slice(SIZE - 1, SIZE)),
            ("bytes=0-", 206, slice(0, SIZE)),
            ("bytes=5-2", 200, slice(0, SIZE)),
            ("lines=1-2", 200, slice(0, SIZE)),
            ("bytes=99999999999999999999-", 416, slice(0, 0)),
        ],
    )
    def test_forms(self, cache: RunningCache, value: str, status: int, body: slice) -> None:
        for _ in range(2):
            answer = cache.get(URL, headers={"Range": value})
            assert answer.status_code == status
            if status == 416:
                assert answer.headers["Content-Range"] == f"bytes */{SIZE}"
            else:
                assert answer.content == whole()[body]
            cache.get(URL)
            cache.wait_idle()

    def test_an_outdated_if_range_gets_the_whole_file(self, cache: RunningCache) -> None:
        headers = {"Range": "bytes=0-9", "If-Range": '"' + "0" * 64 + '"'}
        assert cache.get(URL, headers=headers).status_code == 200


class TestLeaving:
    def test_a_block_of_a_range_is_finished_without_its_reader(
        self, cache: RunningCache, hub: FakeHub
    ) -> None:
        hub.fault("stall", "", host="cdn", at=100_000)
        assert cache.get(URL, headers={"Range": "bytes=0-999"}).content == whole()[:1000]
        assert hub.faults.wait_until_stalled()
        cache.wait_until(lambda: all(r.readers == 0 for r in cache.service.fills.reports()))
        hub.faults.release()
        cache.wait_idle()
        hub.counters.reset()
        later = cache.get(URL, headers={"Range": "bytes=200000-200999"})
        assert later.content == whole()[200_000:201_000]
        assert hub.counters.bytes("cdn") == 0

    def test_a_fill_whose_reader_left_goes_on(self, cache: RunningCache, hub: FakeHub) -> None:
        hub.fault("stall", "", host="cdn", at=2 * MIB)
        with requests.get(cache.endpoint + URL, stream=True, timeout=30) as response:
            response.raw.read(MIB)
        assert hub.faults.wait_until_stalled()
        hub.faults.release()
        cache.wait_until(lambda: len(kept_blobs(cache)) == 1)

    def test_without_linger_it_stops_and_is_resumed(self, tmp_path: Path, hub: FakeHub) -> None:
        with RunningCache(tmp_path, hub, linger=0.0) as cache:
            # Whatever connection it takes: what is half done would be finished.
            hub.fault("stall", "", host="cdn", at=5 * MIB // 4, times=None)
            with requests.get(cache.endpoint + URL, stream=True, timeout=30) as response:
                response.raw.read(MIB)
            assert hub.faults.wait_until_stalled()
            cache.wait_until(lambda: all(r.readers == 0 for r in cache.service.fills.reports()))
            hub.faults.clear()
            cache.wait_idle()
            hub.counters.reset()
            assert cache.get(URL).content == whole()
            assert 0 < hub.counters.bytes("cdn") < SIZE - MIB


def test_a_stopped_server_resumes_from_its_block_map(tmp_path: Path, hub: FakeHub) -> None:
    with RunningCache(tmp_path, hub) as cache:
        hub.fault("stall", "", host="cdn", at=4 * MIB)
        with requests.get(cache.endpoint + URL, stream=True, timeout=30) as response:
            response.raw.read(3 * MIB)
            assert hub.faults.wait_until_stalled()
            hub.faults.clear()
    hub.counters.reset()
    with RunningCache(tmp_path, hub) as cache:
        assert cache.get(URL).content == whole()
    assert hub.counters.bytes("cdn") <= SIZE - 3 * MIB


def test_the_same_bytes_in_another_repo_are_not_fetched_again(
    cache: RunningCache, hub: FakeHub
) -> None:
    hub.repo("models", "org/copy").commit({"weights.bin": BIG})
    cache.get(URL)
    cache.wait_idle()
    hub.counters.reset()
    assert cache.get("/org/copy/resolve/main/weights.bin").content == whole()
    assert hub.counters.count(host="cdn") == 0


class TestOrigins:
    """A digest is easily named: another origin has to deliver its bytes once."""

    @pytest.fixture
    def mirror(self, cache: RunningCache) -> object:
        with FakeHub() as mirror:
            remote = cache.service.config.create_remote({"name": "mirror", "url": mirror.url})
            cache.service.config.create_distribution(
                {"name": "mirror", "base_path": "mirror", "remote": remote.id}
            )
            yield mirror

    def at_mirror(self, cache: RunningCache, path: str) -> requests.Response:
        return requests.get(f"{cache.host}/pulp/content/mirror{path}", timeout=30)

    def test_who_delivers_samples_shares_the_blob(
        self, cache: RunningCache, mirror: FakeHub
    ) -> None:
        mirror.repo("models", "x/y").commit({"model.bin": BIG})
        cache.get(URL)
        cache.wait_idle()
        assert self.at_mirror(cache, "/x/y/resolve/main/model.bin").content == whole()
        assert MIB <= mirror.counters.bytes("cdn") < 2 * MIB

    def test_who_only_names_a_digest_gets_nothing(
        self, cache: RunningCache, mirror: FakeHub
    ) -> None:
        mirror.repo("models", "x/y").commit({"model.bin": BIG})
        mirror.fault("swap", "", host="cdn", times=None)
        cache.get(URL)
        cache.wait_idle()
        answer = self.at_mirror(cache, "/x/y/resolve/main/model.bin")
        assert answer.status_code == 502
        assert whole()[:1000] not in answer.content


class TestRoom:
    def test_the_least_recently_used_goes_first(self, tmp_path: Path, hub: FakeHub) -> None:
        repo = hub.repo("models", "org/room")
        repo.commit({f"{n}.bin": BigFile(2 * MIB, seed=n) for n in (1, 2, 3)})
        with RunningCache(tmp_path, hub, cache_size_limit=5 * MIB) as cache:
            for n in (1, 2):
                cache.get(f"/org/room/resolve/main/{n}.bin")
                cache.wait_idle()
            cache.get("/org/room/resolve/main/1.bin")
            cache.get("/org/room/resolve/main/3.bin")
            cache.wait_idle()
            kept = {path.name for path in kept_blobs(cache)}
            assert kept == {BigFile(2 * MIB, seed=n).sha256() for n in (1, 3)}

    def test_what_does_not_fit_streams_through_verified(self, tmp_path: Path, hub: FakeHub) -> None:
        with RunningCache(tmp_path, hub, cache_size_limit=MIB) as cache:
            assert cache.get(URL).content == whole()
            assert kept_blobs(cache) == []
            hub.fault("corrupt", "", host="cdn", at=MIB)
            with pytest.raises(requests.exceptions.RequestException):
                cache.get(URL)


def test_a_file_of_no_bytes(cache: RunningCache, hub: FakeHub) -> None:
    for _ in range(2):
        answer = cache.get("/org/strange-names/resolve/main/empty.txt")
        assert (answer.status_code, answer.content) == (200, b"")


def test_a_blob_damaged_on_disk_is_fetched_again(cache: RunningCache) -> None:
    cache.get(URL)
    cache.wait_idle()
    (blob,) = kept_blobs(cache)
    blob.chmod(0o600)
    blob.write_bytes(b"cut off")
    assert cache.get(URL).content == whole()


def test_readers_finish_while_their_blob_is_evicted(cache: RunningCache) -> None:
    cache.get(URL)
    cache.wait_idle()
    with requests.get(cache.endpoint + URL, stream=True, timeout=30) as response:
        start = response.raw.read(1000)
        evictor = threading.Thread(target=lambda: cache.service.budget._evict(SIZE))
        evictor.start()
        evictor.join()
        assert start + response.raw.read() == whole()


def test_sha256_of_git_files_lies_beside_them(cache: RunningCache) -> None:
    cache.get("/org/blob/resolve/main/small.json")
    cache.wait_idle()
    (blob,) = kept_blobs(cache)
    sidecar = blob.with_name(blob.name + ".json").read_text()
    assert hashlib.sha256(b'{"a": 1}').hexdigest() in sidecar


def test_a_streaming_remote_keeps_nothing(cache: RunningCache) -> None:
    (remote,) = cache.service.config.remotes()
    cache.service.config.update_remote(remote.id, {"policy": "streamed"})
    assert cache.get(URL).content == whole()
    assert kept_blobs(cache) == []


class TestUnkept:
    """What cannot be kept is streamed, with the same promises."""

    @pytest.fixture
    def full(self, tmp_path: Path, hub: FakeHub) -> Iterator[RunningCache]:
        with RunningCache(tmp_path, hub, cache_size_limit=MIB) as cache:
            yield cache

    def test_a_cut_upstream_is_asked_for_the_rest(self, full: RunningCache, hub: FakeHub) -> None:
        hub.fault("cut", "", host="cdn", at=3 * MIB)
        assert full.get(URL).content == whole()
        assert hub.counters.bytes("cdn") < SIZE + MIB

    def test_a_range(self, full: RunningCache, hub: FakeHub) -> None:
        answer = full.get(URL, headers={"Range": f"bytes={MIB}-{3 * MIB - 1}"})
        assert (answer.status_code, answer.content) == (206, whole()[MIB : 3 * MIB])

    def test_a_refusal_before_the_first_byte_is_answered(
        self, full: RunningCache, hub: FakeHub
    ) -> None:
        hub.fault("html", "", host="cdn", times=None)
        assert full.get(URL).status_code == 521

    def test_damage_that_was_given_out_taints(self, full: RunningCache, hub: FakeHub) -> None:
        hub.fault("corrupt", "", host="cdn", at=MIB)
        with pytest.raises(requests.exceptions.RequestException):
            full.get(URL)
        answer = full.get(URL, headers={"Range": f"bytes={4 * MIB}-"})
        assert (answer.status_code, answer.content) == (200, whole())
        assert full.get(URL, headers={"Range": "bytes=9-99"}).status_code == 503


class TestPartsOffline:
    def test_what_is_there_of_a_file_is_read_without_the_hub(
        self, tmp_path: Path, hub: FakeHub
    ) -> None:
        part = {"Range": f"bytes={2 * MIB + 5}-{3 * MIB}"}
        with RunningCache(tmp_path, hub) as cache:
            assert cache.get(URL, headers=part).status_code == 206
        hub.pause()
        with RunningCache(tmp_path, hub, revision_ttl=0.0, access_ttl=0.0) as cache:
            answer = cache.get(URL, headers=part)
            assert (answer.status_code, answer.content) == (206, whole()[2 * MIB + 5 : 3 * MIB + 1])
            assert answer.headers["X-HF-Warning"]
            elsewhere = cache.get(URL, headers={"Range": "bytes=5-9"})
            assert elsewhere.status_code == 521
        hub.resume()
