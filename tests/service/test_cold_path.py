"""What a cold download asks the upstream for, and what it gets through."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from fake_hub import BigFile, FakeHub
from serving import RunningCache

from jupyter_hf_cache.upstream import fetching, links, transfer
from jupyter_hf_cache.upstream.lanes import Lanes, Reading

KIB = 1 << 10
MIB = 1 << 20
SIZE = 12 * MIB + 123
BIG = BigFile(SIZE, seed=11)
URL = "/org/cold/resolve/main/model.bin"


@pytest.fixture(autouse=True)
def repo(hub: FakeHub) -> None:
    hub.repo("models", "org/cold").commit({"model.bin": BIG, "small.json": b'{"a": 1}'})
    hub.repo("models", "org/mine", private=True).commit({"model.bin": BIG})


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch, hub: FakeHub) -> None:
    """Downloads use four connections as soon as something came."""

    class Eager(Lanes):
        def look(self, reading: Reading) -> int:
            if self.target == 1 and not self._rest_until:
                self.target = 4
            return self.target

    monkeypatch.setattr(fetching, "Lanes", Eager)
    monkeypatch.setattr(fetching, "NEAR", MIB)
    monkeypatch.setattr(fetching, "PIECE", MIB)
    monkeypatch.setattr(fetching, "_LEAST_PIECE", 256 * KIB)
    monkeypatch.setattr(fetching, "_LOOK_SECONDS", 0.0)
    hub.rate = 8 * MIB


def whole() -> bytes:
    return BIG.read(0, SIZE)


def resolves(hub: FakeHub) -> int:
    """How often the Hub was asked about the file, its head included."""
    return hub.counters.count(path_contains="model.bin", host="hub")


class TestSignedUrls:
    def test_many_ranges_cost_the_hub_one_question(self, cache: RunningCache, hub: FakeHub) -> None:
        with ThreadPoolExecutor(8) as pool:
            starts = range(0, SIZE, MIB)
            asked = [{"Range": f"bytes={start}-{start + 99}"} for start in starts]
            answers = list(pool.map(lambda headers: cache.get(URL, headers=headers), asked))
        assert [a.content for a in answers] == [BIG.read(start, 100) for start in starts]
        assert hub.counters.count("GET", host="cdn") == len(starts)
        assert resolves(hub) == 1, "for its head"

    @pytest.mark.usefixtures("four")
    def test_so_do_several_connections(self, cache: RunningCache, hub: FakeHub) -> None:
        assert cache.get(URL).content == whole()
        assert hub.counters.count("GET", host="cdn") > 4
        assert resolves(hub) == 1
        assert hub.counters.bytes("cdn") <= SIZE + 4 * MIB

    @pytest.mark.parametrize("url_bytes", [MIB + 17, 5 * MIB])
    def test_one_that_ends_on_the_way_is_replaced(
        self, cache: RunningCache, hub: FakeHub, url_bytes: int
    ) -> None:
        hub.url_bytes = url_bytes
        assert cache.get(URL).content == whole()
        assert resolves(hub) > SIZE // url_bytes, "each brings no more than it is good for"
        assert hub.counters.bytes("cdn") < SIZE + MIB, "nothing was fetched again"

    @pytest.mark.usefixtures("four")
    def test_all_connections_go_on_with_fresh_ones(self, cache: RunningCache, hub: FakeHub) -> None:
        with requests.get(cache.endpoint + URL, stream=True, timeout=60) as response:
            start = response.raw.read(2 * MIB)
            hub.urls.expire_all()
            assert start + response.raw.read() == whole()
        assert hub.counters.count(host="cdn", status=403) >= 1
        assert 2 <= resolves(hub) <= 7
        cache.wait_idle()
        assert {r.state for r in cache.service.fills.reports()} == {"kept"}

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
    def test_whatever_the_storage_says_of_an_old_one_the_hub_is_asked(
        self, cache: RunningCache, hub: FakeHub, status: int
    ) -> None:
        assert cache.get(URL, headers={"Range": "bytes=0-9"}).status_code == 206
        hub.fault("status", "", host="cdn", status=status)
        answer = cache.get(URL, headers={"Range": f"bytes={8 * MIB}-{8 * MIB + 9}"})
        assert (answer.status_code, answer.content) == (206, BIG.read(8 * MIB, 10))
        assert resolves(hub) == 2

    def test_a_small_file_costs_one_question_and_one_answer(
        self, cache: RunningCache, hub: FakeHub
    ) -> None:
        for method in ("HEAD", "GET"):
            answer = cache.request(method, "/org/cold/resolve/main/small.json")
            assert answer.status_code == 200
        assert answer.content == b'{"a": 1}'
        asked = hub.counters.select(path_contains="small.json")
        assert [(r.method, r.status) for r in asked] == [("HEAD", 307), ("GET", 200)]

    def test_the_hubs_word_on_the_right_is_final(
        self, cache: RunningCache, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(links, "LONGEST_SECONDS", 0.0)
        hub.user("me", "hf_me", reads=["org/mine"])
        mine, headers = "/org/mine/resolve/main/model.bin", {"Authorization": "Bearer hf_me"}
        hub.fault("stall", "", host="cdn", at=2 * MIB)
        monkeypatch.setattr(transfer, "STALL_SECONDS", 0.5)
        url = cache.trusted + mine
        with requests.get(url, headers=headers, stream=True, timeout=60) as response:
            start = response.raw.read(MIB)
            assert start == BIG.read(0, MIB)
            assert hub.faults.wait_until_stalled()
            hub.accounts.revoke("hf_me")
            with pytest.raises(Exception, match=r"IncompleteRead|Connection broken"):
                while response.raw.read(MIB):
                    pass
        cache.wait_idle()
        assert "failed" in {r.state for r in cache.service.fills.reports()}

    def test_it_gets_no_credential_and_is_not_shown(
        self, cache: RunningCache, hub: FakeHub, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        hub.user("me", "hf_me", reads=["org/mine"])
        mine, headers = "/org/mine/resolve/main/model.bin", {"Authorization": "Bearer hf_me"}
        url = cache.trusted + mine
        hub.fault("cut", "", host="cdn", at=MIB)
        for part in ("bytes=0-9", f"bytes={4 * MIB}-{5 * MIB}", f"bytes={9 * MIB}-"):
            answer = requests.get(url, headers={**headers, "Range": part}, timeout=60)
            assert answer.status_code == 206
            assert "Signature" not in str(answer.headers)
        cache.wait_idle()
        assert all(r.authorization is None for r in hub.counters.select(host="cdn"))
        assert "Signature" not in caplog.text
        found = cache.root.rglob("*")
        assert not any(b"Signature=" in path.read_bytes() for path in found if path.is_file())


@pytest.mark.usefixtures("four")
class TestSeveralConnections:
    def test_each_byte_is_fetched_once(self, cache: RunningCache, hub: FakeHub) -> None:
        with ThreadPoolExecutor(5) as pool:
            bodies = list(pool.map(lambda _: cache.get(URL).content, range(5)))
        assert all(body == whole() for body in bodies)
        # The first answer is broken off where the pieces of the others begin.
        assert hub.counters.bytes("cdn") <= SIZE + 4 * MIB

    @pytest.mark.parametrize("kind", ["cut", "short", "reset"])
    def test_each_is_mended_for_itself(self, cache: RunningCache, hub: FakeHub, kind: str) -> None:
        hub.fault(kind, "", host="cdn", at=300 * KIB, times=3, skip=1)
        assert cache.get(URL).content == whole()

    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
    def test_a_burst_of_failures_is_outlived(
        self, cache: RunningCache, hub: FakeHub, status: int
    ) -> None:
        hub.fault("status", "", host="cdn", status=status, times=6, skip=1)
        assert cache.get(URL).content == whole()

    def test_too_many_requests_for_the_storage_leave_one_connection(
        self, cache: RunningCache, hub: FakeHub
    ) -> None:
        limit = hub.fault(
            "status", "", host="cdn", status=429, skip=1, headers={"Retry-After": "1"}
        )
        assert cache.get(URL).content == whole()
        assert limit.hits == 1

    def test_an_origin_without_ranges_is_read_over_one(
        self, cache: RunningCache, hub: FakeHub
    ) -> None:
        hub.fault("ignore_range", "", host="cdn", times=None)
        assert cache.get(URL).content == whole()
        asked = [record.range for record in hub.counters.select("GET", host="cdn")]
        told = [n for n, value in enumerate(asked) if value is not None]
        assert len(told) <= 4
        assert all(value is None for value in asked[max(told, default=0) + 1 :])

    def test_a_lie_about_the_range_is_not_believed(self, cache: RunningCache, hub: FakeHub) -> None:
        hub.fault("wrong_range", "", host="cdn", at=MIB, times=2)
        assert cache.get(URL).content == whole()

    def test_damage_in_a_piece_ends_like_any_damage(
        self, cache: RunningCache, hub: FakeHub
    ) -> None:
        hub.fault("corrupt", "", host="cdn", at=9 * MIB, times=None)
        with pytest.raises(requests.exceptions.RequestException):
            cache.get(URL)
        hub.faults.clear()
        cache.wait_idle()

    def test_a_remote_that_allows_one_download_gets_no_more(
        self, cache: RunningCache, hub: FakeHub
    ) -> None:
        (remote,) = cache.service.config.remotes()
        cache.service.config.update_remote(remote.id, {"download_concurrency": 1})
        assert cache.get(URL).content == whole()
        assert hub.counters.count("GET", host="cdn") == 1


class TestBusyHub:
    @pytest.fixture(autouse=True)
    def asked_for_the_bytes_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(links, "LONGEST_SECONDS", 0.0)

    def test_a_long_wait_is_passed_on_to_who_got_nothing(
        self, cache: RunningCache, hub: FakeHub
    ) -> None:
        cache.head(URL)
        hub.fault("status", "model.bin", status=429, method="GET", headers={"Retry-After": "40"})
        answer = cache.get(URL)
        assert answer.status_code == 429
        assert answer.headers["Retry-After"] == "40"

    def test_a_short_one_is_waited_for(self, cache: RunningCache, hub: FakeHub) -> None:
        cache.head(URL)
        limit = hub.fault(
            "status", "model.bin", status=429, method="GET", headers={"Retry-After": "1"}
        )
        assert cache.get(URL).content == whole()
        assert limit.hits == 1

    @pytest.mark.parametrize("status", [500, 502, 503, 504])
    def test_a_burst_of_failures_is_outlived(
        self, cache: RunningCache, hub: FakeHub, status: int
    ) -> None:
        cache.head(URL)
        hub.fault("status", "model.bin", status=status, method="GET", times=3)
        assert cache.get(URL).content == whole()


def test_a_stalled_storage_is_asked_again(
    cache: RunningCache, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "STALL_SECONDS", 0.5)
    hub.fault("stall", "", host="cdn", at=3 * MIB + 5)
    assert cache.get(URL).content == whole()
    assert hub.counters.count("GET", host="cdn") == 2


def test_a_client_that_leaves_at_any_byte_finds_the_rest_later(
    cache: RunningCache, hub: FakeHub
) -> None:
    hub.rate = 24 * MIB
    received = b""
    for _ in range(4):
        headers = {"Range": f"bytes={len(received)}-"} if received else {}
        with requests.get(
            cache.endpoint + URL, headers=headers, stream=True, timeout=60
        ) as response:
            received += response.raw.read(MIB + 4321)
    rest = cache.get(URL, headers={"Range": f"bytes={len(received)}-"})
    assert rest.status_code == 206
    assert received + rest.content == whole()
    assert hub.counters.bytes("cdn") <= SIZE + MIB
