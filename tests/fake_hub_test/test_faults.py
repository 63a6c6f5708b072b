"""Each fault does to an answer what it says, once, and to no other."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pytest
import requests
from fake_hub import BigFile, FakeHub
from urllib3.exceptions import HTTPError

MIB = 1 << 20
FILE = BigFile(3 * MIB, seed=2)
BODY = FILE.read(0, FILE.size)


@pytest.fixture
def fetch(ask: Any) -> Callable[..., requests.Response]:
    """Gets the large file from the CDN, by a fresh URL each time."""

    def fetch(**rest: Any) -> requests.Response:
        url = ask("HEAD", "/org/large/resolve/main/shard.bin").headers["Location"]
        return ask("GET", url, **rest)

    return fetch


def read_until_it_breaks(answer: requests.Response) -> bytes:
    """The body bytes that came before the connection ended."""
    received = b""
    try:
        with answer:
            while piece := answer.raw.read1(1 << 16):
                received += piece
    except (HTTPError, OSError):
        pass
    return received


def test_cut_ends_the_connection_after_the_given_bytes(hub: FakeHub, fetch: Any) -> None:
    hub.fault("cut", "shard.bin", host="cdn", at=1_500_000)
    answer = fetch(stream=True)
    assert answer.headers["Content-Length"] == str(FILE.size)
    assert read_until_it_breaks(answer) == BODY[:1_500_000]
    assert hub.counters.bytes("cdn") == 1_500_000
    assert fetch().content == BODY


def test_reset_and_close_come_instead_of_an_answer(hub: FakeHub, ask: Any) -> None:
    for kind in ("reset", "close"):
        hub.fault(kind, "/api/models")
        with pytest.raises(requests.ConnectionError):
            ask("GET", "/api/models")
    assert ask("GET", "/api/models").status_code == 200


def test_reset_can_come_in_mid_body(hub: FakeHub, fetch: Any) -> None:
    hub.fault("reset", "shard.bin", host="cdn", at=2_000_000)
    received = read_until_it_breaks(fetch(stream=True))
    assert len(received) <= 2_000_000
    assert BODY.startswith(received)


def test_short_is_a_well_formed_answer_with_too_little_in_it(hub: FakeHub, fetch: Any) -> None:
    hub.fault("short", "shard.bin", host="cdn", at=1000)
    answer = fetch()
    assert (answer.status_code, answer.content) == (200, BODY[:1000])


def test_corrupt_changes_one_byte_of_the_file_whatever_the_range(hub: FakeHub, fetch: Any) -> None:
    hub.fault("corrupt", "shard.bin", host="cdn", at=2_000_000, times=2)
    whole = fetch().content
    part = fetch(headers={"Range": "bytes=1999999-2000001"}).content
    assert [i for i in range(len(BODY)) if whole[i] != BODY[i]] == [2_000_000]
    assert part == whole[1_999_999:2_000_002]
    assert fetch().content == BODY


def test_swap_is_another_body_of_the_same_size(hub: FakeHub, fetch: Any) -> None:
    hub.fault("swap", "shard.bin", host="cdn")
    body = fetch().content
    assert len(body) == len(BODY)
    assert body != BODY


def test_stall_holds_the_body_until_released(hub: FakeHub, fetch: Any) -> None:
    hub.fault("stall", "shard.bin", host="cdn", at=1_000_000)
    answer = fetch(stream=True)
    first = answer.raw.read(1_000_000)
    assert hub.faults.wait_until_stalled()
    hub.faults.release()
    assert first + answer.raw.read() == BODY


def test_stall_before_the_answer_ends_with_the_client_s_patience(hub: FakeHub, ask: Any) -> None:
    hub.fault("stall", "/api/models", method="HEAD")
    with pytest.raises(requests.Timeout):
        requests.head(f"{hub.url}/api/models", timeout=0.2)
    assert hub.faults.wait_until_stalled(0)
    assert ask("GET", "/api/models").status_code == 200


def test_stop_does_not_wait_for_a_stalled_answer() -> None:
    with FakeHub.with_defaults() as hub:
        hub.fault("stall", "/api/models")
        asking = threading.Thread(target=lambda: _try(f"{hub.url}/api/models"))
        asking.start()
        assert hub.faults.wait_until_stalled()
    asking.join(10)
    assert not asking.is_alive()


def test_stop_does_not_wait_for_a_slow_body() -> None:
    with FakeHub.with_defaults() as hub, requests.Session() as session:
        hub.rate = 1000
        url = f"{hub.url}/org/large/resolve/main/shard.bin"
        with session.get(url, stream=True, timeout=10) as answer:
            assert answer.raw.read(10) == BODY[:10]
            hub.stop()
            assert len(read_until_it_breaks(answer)) < len(BODY)


def _try(url: str) -> None:
    with contextlib.suppress(requests.RequestException):
        requests.get(url, timeout=10)


def test_status_is_any_other_answer(hub: FakeHub, ask: Any) -> None:
    hub.fault("status", "/api/models", status=429, headers={"Retry-After": "1"}, times=2)
    for _ in range(2):
        answer = ask("GET", "/api/models")
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
    assert ask("GET", "/api/models").status_code == 200


def test_status_on_the_cdn_is_an_expired_url(hub: FakeHub, fetch: Any) -> None:
    hub.fault("status", "shard.bin", host="cdn", status=403)
    assert fetch().status_code == 403
    assert fetch().status_code == 200


def test_html_is_a_captive_portal(hub: FakeHub, ask: Any) -> None:
    hub.fault("html", "config.json")
    answer = ask("HEAD", "/bert-base-uncased/resolve/main/config.json")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "X-Repo-Commit" not in answer.headers


def test_ignored_range_brings_the_whole_file(hub: FakeHub, fetch: Any) -> None:
    hub.fault("ignore_range", "shard.bin", host="cdn")
    answer = fetch(headers={"Range": "bytes=5-9"})
    assert (answer.status_code, answer.content) == (200, BODY)


def test_wrong_range_says_honestly_that_it_is_another(hub: FakeHub, fetch: Any) -> None:
    hub.fault("wrong_range", "shard.bin", host="cdn", at=2)
    answer = fetch(headers={"Range": "bytes=5-9"})
    assert answer.headers["Content-Range"] == f"bytes 7-9/{FILE.size}"
    assert answer.content == BODY[7:10]


def test_missing_metadata_is_a_file_without_the_hub_s_headers(hub: FakeHub, ask: Any) -> None:
    hub.fault("no_metadata", "/resolve/")
    answer = ask("HEAD", "/bert-base-uncased/resolve/main/config.json")
    assert answer.status_code == 307
    assert not {"X-Repo-Commit", "X-Linked-ETag", "X-Linked-Size", "ETag"} & set(answer.headers)


def test_a_slow_body_is_whole_and_can_be_left(hub: FakeHub, fetch: Any, ask: Any) -> None:
    fault = hub.fault("slow", "shard.bin", host="cdn", rate=8 << 20)
    assert fetch().content == BODY
    assert fault.hits == 1
    fault = hub.fault("slow", "shard.bin", host="cdn", rate=1000)
    with fetch(stream=True) as answer:
        assert answer.raw.read(10) == BODY[:10]
    assert ask("GET", "/api/models").status_code == 200


def test_a_fault_skips_and_counts(hub: FakeHub, ask: Any) -> None:
    fault = hub.fault("status", "/api/models", skip=1, times=None, status=500)
    statuses = [ask("GET", "/api/models").status_code for _ in range(3)]
    assert statuses == [200, 500, 500]
    assert not hub.counters.wait_until(lambda seen: seen.count(status=500) > 2, timeout=0)
    assert fault.hits == 2
    hub.faults.clear()
    assert ask("GET", "/api/models").status_code == 200


def test_rates_limit_the_cdn_and_not_the_hub(hub: FakeHub, fetch: Any) -> None:
    hub.rate, hub.total_rate = 30 << 20, 20 << 20
    assert fetch().content == BODY


def test_a_url_good_for_some_bytes_ends_under_way_and_is_refused_from_then_on(
    hub: FakeHub, ask: Any
) -> None:
    hub.url_bytes = 1_000_000
    url = ask("HEAD", "/org/large/resolve/main/shard.bin").headers["Location"]
    assert ask("GET", url, headers={"Range": "bytes=0-399999"}).content == BODY[:400_000]
    assert read_until_it_breaks(ask("GET", url, stream=True)) == BODY[:600_000]
    assert ask("GET", url).status_code == 403
    fresh = ask("HEAD", "/org/large/resolve/main/shard.bin").headers["Location"]
    assert ask("GET", fresh, headers={"Range": "bytes=5-9"}).content == BODY[5:10]


def test_the_time_of_a_url_decides_when_an_answer_begins_not_when_it_ends(
    hub: FakeHub, ask: Any
) -> None:
    hub.fault("stall", "shard.bin", host="cdn", at=1_000_000)
    url = ask("HEAD", "/org/large/resolve/main/shard.bin").headers["Location"]
    with ask("GET", url, stream=True) as answer:
        assert hub.faults.wait_until_stalled()
        hub.urls.expire_all()
        hub.faults.release()
        assert answer.content == BODY
    assert ask("GET", url).status_code == 403


def test_a_false_range_says_one_thing_and_holds_another(hub: FakeHub, fetch: Any) -> None:
    hub.fault("false_range", "shard.bin", host="cdn", at=2)
    answer = fetch(headers={"Range": "bytes=5-9"})
    assert answer.headers["Content-Range"] == f"bytes 5-9/{FILE.size}"
    assert answer.content == BODY[7:12]
    assert fetch(headers={"Range": "bytes=5-9"}).content == BODY[5:10]


def test_a_longer_answer_has_what_the_file_has_not(hub: FakeHub, fetch: Any) -> None:
    hub.fault("longer", "shard.bin", host="cdn", at=5)
    answer = fetch()
    assert answer.headers["Content-Length"] == str(FILE.size + 5)
    assert answer.content == BODY + bytes(5)


def test_an_endless_answer_does_not_end(hub: FakeHub, fetch: Any) -> None:
    hub.fault("endless", "shard.bin", host="cdn")
    with fetch(stream=True) as answer:
        assert "Content-Length" not in answer.headers
        assert answer.raw.read(len(BODY) + MIB, decode_content=True) == BODY + bytes(MIB)


def test_gzip_comes_though_nobody_asked(hub: FakeHub, fetch: Any) -> None:
    hub.fault("gzip", "shard.bin", host="cdn")
    answer = fetch()
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.content == BODY


def test_another_version_has_another_etag(hub: FakeHub, fetch: Any) -> None:
    known = fetch().headers["ETag"]
    hub.fault("other_version", "shard.bin", host="cdn")
    answer = fetch()
    assert answer.headers["ETag"] != known
    assert len(answer.content) == len(BODY) and answer.content != BODY
