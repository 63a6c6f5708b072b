"""Several ranges in one request: every byte at its place, whatever the bytes come from."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from fake_hub import BigFile, FakeHub
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import RunningCache

from jupyter_hf_cache.protocol.ranges import ByteRange, parse_content_range

MIB = 1 << 20
BIG = BigFile(9 * MIB + 11, seed=21)
SMALL = bytes(range(256)) * 3
SPECS = "bytes=5-6,0-1,100-299"

Parts = list[tuple[ByteRange, bytes]]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCache]:
    """A cache that has `org/ranges` already."""
    with FakeHub.with_defaults() as hub:
        hub.repo("models", "org/ranges").commit({"big.bin": BIG, "small.bin": SMALL})
        with RunningCache(tmp_path_factory.mktemp("kept"), hub) as cache:
            for name in ("big.bin", "small.bin"):
                ask(cache, None, name)
            cache.wait_idle()
            yield cache


def ask(
    cache: RunningCache, value: str | None, name: str = "big.bin", **headers: str
) -> requests.Response:
    if value is not None:
        headers["Range"] = value
    return cache.get(f"/org/ranges/resolve/main/{name}", headers=headers)


def parts_of(answer: requests.Response) -> Parts:
    """Read a multipart body strictly: by the lengths that it tells, with nothing left over."""
    assert answer.status_code == 206
    found = re.fullmatch("multipart/byteranges; boundary=(.+)", answer.headers["Content-Type"])
    assert found is not None
    delimiter, rest = f"--{found[1]}".encode(), answer.content
    assert len(rest) == int(answer.headers["Content-Length"])
    parts = []
    while not rest.startswith(delimiter + b"--\r\n"):
        assert rest.startswith(delimiter + b"\r\n")
        head, _, rest = rest.removeprefix(delimiter + b"\r\n").partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        place = parse_content_range(fields["Content-Range"])
        assert place is not None
        assert fields["Content-Type"] == "application/octet-stream"
        parts.append((place[0], rest[: len(place[0])]))
        rest = rest[len(place[0]) :]
        assert rest.startswith(b"\r\n")
        rest = rest[2:]
    assert rest == delimiter + b"--\r\n"
    return parts


def bytes_of(*pairs: tuple[int, int]) -> Parts:
    return [(ByteRange(*pair), BIG.read(pair[0], pair[1] - pair[0])) for pair in pairs]


WANTED = bytes_of((5, 7), (0, 2), (100, 300))


class TestKept:
    def test_the_parts_come_in_the_order_asked(self, kept: RunningCache) -> None:
        assert parts_of(ask(kept, SPECS)) == WANTED
        small = parts_of(ask(kept, SPECS, "small.bin"))
        assert small == [(part, SMALL[part.start : part.end]) for part, _ in WANTED]

    def test_big_parts_too(self, kept: RunningCache) -> None:
        wanted = bytes_of((5 * MIB, 9 * MIB), (7, 3 * MIB), (4 * MIB, 4 * MIB + 1))
        specs = ",".join(f"{part.start}-{part.end - 1}" for part, _ in wanted)
        assert parts_of(ask(kept, f"bytes={specs}")) == wanted

    def test_the_end_of_the_file(self, kept: RunningCache) -> None:
        size = BIG.size
        assert parts_of(ask(kept, "bytes=-3,0-0")) == bytes_of((size - 3, size), (0, 1))
        wanted = bytes_of((0, 1), (size - 9, size))
        assert parts_of(ask(kept, f"bytes=0-0,{size - 9}-")) == wanted
        assert parts_of(ask(kept, f"bytes=0-0,{size - 9}-{size + 99}")) == wanted

    def test_what_overlaps_or_touches_is_sent_once(self, kept: RunningCache) -> None:
        answer = ask(kept, "bytes=10-19,0-4,5-12")
        assert (answer.status_code, answer.content) == (206, BIG.read(0, 20))
        assert answer.headers["Content-Range"] == f"bytes 0-19/{BIG.size}"
        assert parts_of(ask(kept, "bytes=50-59,0-1,55-70")) == bytes_of((50, 71), (0, 2))

    def test_the_one_that_can_be_had_is_a_plain_206(self, kept: RunningCache) -> None:
        answer = ask(kept, f"bytes={BIG.size}-,3-5")
        assert (answer.status_code, answer.content) == (206, BIG.read(3, 3))
        assert answer.headers["Content-Type"] == "application/octet-stream"

    def test_none_that_can_be_had(self, kept: RunningCache) -> None:
        answer = ask(kept, f"bytes={BIG.size}-,{BIG.size + 5}-{BIG.size + 6}")
        assert answer.status_code == 416
        assert answer.headers["Content-Range"] == f"bytes */{BIG.size}"

    @pytest.mark.parametrize(
        "value", ["bytes=0-1,5-3", "bytes=0-,0-,0-,0-", "bytes=" + ",".join(["0-0"] * 65)]
    )
    def test_nonsense_and_floods_get_the_whole_file(self, kept: RunningCache, value: str) -> None:
        answer = ask(kept, value, "small.bin")
        assert (answer.status_code, answer.content) == (200, SMALL)

    def test_if_range(self, kept: RunningCache) -> None:
        etag = ask(kept, None, "small.bin").headers["ETag"]
        assert parts_of(ask(kept, SPECS, "small.bin", **{"If-Range": etag}))
        other = ask(kept, SPECS, "small.bin", **{"If-Range": '"other"'})
        assert (other.status_code, other.content) == (200, SMALL)

    def test_head_says_what_get_would(self, kept: RunningCache) -> None:
        got = ask(kept, SPECS)
        url = "/org/ranges/resolve/main/big.bin"
        head = kept.head(url, headers={"Range": SPECS})
        assert (head.status_code, head.content) == (206, b"")
        for name in ("Content-Length", "ETag", "X-Repo-Commit", "Content-Disposition"):
            assert head.headers[name] == got.headers[name]
        assert head.headers["Content-Type"].startswith("multipart/byteranges; boundary=")

    def test_the_connection_is_used_again(self, kept: RunningCache) -> None:
        url = kept.endpoint + "/org/ranges/resolve/main/big.bin"
        with requests.Session() as session:
            for _ in range(3):
                answer = session.get(url, headers={"Range": f"bytes=0-2000000,{4 * MIB}-"})
                assert len(parts_of(answer)) == 2
                assert session.get(url, headers={"Range": "bytes=1-1"}).content == BIG.read(1, 1)
            (pool,) = session.get_adapter(url).poolmanager.pools._container.values()
            assert pool.num_connections == 1

    def test_curl(self, kept: RunningCache, tmp_path: Path) -> None:
        url = kept.endpoint + "/org/ranges/resolve/main/small.bin"
        got = subprocess.run(
            ["curl", "-sS", "--noproxy", "*", "-r", "0-1,5-6,-1", url],
            check=True,
            capture_output=True,
            timeout=60,
        ).stdout
        pieces = re.split(rb"(?:\r\n)?--[0-9a-f]{32}(?:--)?\r\n", got)
        assert [piece.partition(b"\r\n\r\n")[2] for piece in pieces[1:-1]] == [
            SMALL[0:2],
            SMALL[5:7],
            SMALL[-1:],
        ]

    @given(
        st.lists(
            st.one_of(
                st.tuples(st.integers(0, 1000), st.integers(0, 1000)).map("{0[0]}-{0[1]}".format),
                st.integers(0, 1000).map("{}-".format),
                st.integers(0, 1000).map("-{}".format),
                st.sampled_from(["", " ", "-", "x", "9" * 30 + "-"]),
            ),
            max_size=6,
        )
    )
    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    def test_any_header_gets_right_bytes(self, kept: RunningCache, specs: list[str]) -> None:
        answer = ask(kept, "bytes=" + ",".join(specs), "small.bin")
        if answer.status_code == 206 and "Content-Range" in answer.headers:
            place = parse_content_range(answer.headers["Content-Range"])
            assert place is not None
            assert answer.content == SMALL[place[0].start : place[0].end]
        elif answer.status_code == 206:
            parts = parts_of(answer)
            assert all(SMALL[part.start : part.end] == data for part, data in parts)
            covered = [byte for part, _ in parts for byte in range(part.start, part.end)]
            assert len(covered) == len(set(covered))
        else:
            assert answer.status_code in (200, 416)
            assert answer.status_code == 416 or answer.content == SMALL


class TestNotKept:
    @pytest.fixture(autouse=True)
    def repo(self, hub: FakeHub) -> None:
        hub.repo("models", "org/ranges").commit({"big.bin": BIG, "small.bin": SMALL})

    def test_only_the_wanted_parts_are_fetched(self, cache: RunningCache, hub: FakeHub) -> None:
        size = BIG.size
        wanted = bytes_of((size - 8, size), (0, 4), (5 * MIB, 5 * MIB + 3))
        specs = ",".join(f"{part.start}-{part.end - 1}" for part, _ in wanted)
        assert parts_of(ask(cache, f"bytes={specs}")) == wanted
        cache.wait_idle()
        assert hub.counters.bytes("cdn") < 5 * MIB

    def test_a_part_waits_for_nothing_else(self, cache: RunningCache, hub: FakeHub) -> None:
        hub.fault("stall", "", host="cdn", at=2 * MIB)
        url = cache.endpoint + "/org/ranges/resolve/main/big.bin"
        with requests.get(url, stream=True, timeout=60) as whole:
            assert whole.raw.read(10) == BIG.read(0, 10)
            assert hub.faults.wait_until_stalled()
            wanted = bytes_of((8 * MIB, 8 * MIB + 9), (100, 103))
            specs = ",".join(f"{part.start}-{part.end - 1}" for part, _ in wanted)
            assert parts_of(ask(cache, f"bytes={specs}")) == wanted
            hub.faults.release()
            assert whole.raw.read() == BIG.read(10, BIG.size)

    def test_a_small_file_is_kept_whole(self, cache: RunningCache) -> None:
        parts = parts_of(ask(cache, SPECS, "small.bin"))
        assert parts == [(part, SMALL[part.start : part.end]) for part, _ in WANTED]
        cache.wait_idle()
        assert ask(cache, None, "small.bin").headers["X-HF-Cache-Result"] == "hit"

    def test_what_is_not_to_be_kept_is_passed_through(self, cache: RunningCache) -> None:
        remote = cache.service.config.remotes()[0]
        cache.service.config.update_remote(remote.id, {"policy": "streamed"})
        assert parts_of(ask(cache, SPECS)) == WANTED
        assert list(cache.service.store.blobs()) == []

    def test_nobody_follows_when_it_is_over(self, cache: RunningCache) -> None:
        assert parts_of(ask(cache, SPECS)) == WANTED
        # A fill of parts ends when nobody follows it any more.
        cache.wait_idle()
        assert list(cache.service.store.blobs()) == []
