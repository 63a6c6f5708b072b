"""Any `Range` header, from end to end, against a second reading of the standard."""

from __future__ import annotations

import http.client
import os
import random
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from fake_hub import BigFile, FakeHub, SmallFile
from hypothesis import given, settings
from hypothesis import strategies as st
from robustness import reference
from robustness.readers import check_parts
from robustness.wanted import KIB, MIB, Wanted, add_repo
from serving import RunningCache

SCALE = int(os.environ.get("HF_CACHE_FUZZ_SCALE", "1"))
# Sent from memory, from a blob in pieces, from a blob by the kernel; and nothing at all.
SIZES = (0, 1, 2000, 300 * KIB, 2 * MIB + 17)


class Site:
    """A Hub, a cache before it, and a kept file of each size."""

    def __init__(self, cache: RunningCache) -> None:
        self.cache, self.hub = cache, cache.hub
        rng = random.Random(9)
        contents = {f"{size}.bin": SmallFile(rng.randbytes(size)) for size in SIZES}
        files = add_repo(self.hub, "fuzz/kept", contents)
        for file in files:
            assert cache.get(file.path).status_code == 200
        cache.wait_idle()
        self.kept = {file.size: file for file in files}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with FakeHub() as hub, RunningCache(tmp_path_factory.mktemp("cache"), hub) as cache:
        yield Site(cache)


NUMBERS = st.one_of(
    st.integers(0, 20),
    st.sampled_from([size + shift for size in SIZES for shift in (-1, 0, 1) if size + shift >= 0]),
    st.integers(0, 3 * MIB),
    st.sampled_from([10**18, 10**19, 2**63, 10**400]),
).map(str)
SPEC = st.one_of(
    st.builds("{}-{}".format, NUMBERS, NUMBERS),
    st.builds("{}-".format, NUMBERS),
    st.builds("-{}".format, NUMBERS),
    st.builds("000{}-{}".format, NUMBERS, NUMBERS),
    st.sampled_from(["", " ", "-", "a-b", "1-2-3", "1 -2", "--5", "0x1-2", "+1-2", "1.0-2"]),
)
SPECS = st.lists(SPEC, min_size=1, max_size=6).flatmap(
    lambda specs: st.sampled_from([",", ", ", " ,\t"]).map(lambda comma: comma.join(specs))
)
HEADERS = st.one_of(
    st.builds("{}{}".format, st.sampled_from(["bytes=", "BYTES=", "bytes = ", "bytes"]), SPECS),
    st.builds("{}{}".format, st.sampled_from(["items=", "bytes:", "=", ""]), SPECS),
    st.integers(1, 80).map(lambda count: "bytes=" + ",".join(["0-1"] * count)),
    st.integers(60, 70).map(lambda n: "bytes=" + ",".join(f"{9 * i}-{9 * i}" for i in range(n))),
    st.text("bytes=0123456789-, \t", max_size=40).map("x".__add__),
    st.text("0123456789-, ", max_size=40).map("bytes=".__add__),
)
CONDITIONS = st.sampled_from(
    [None, None, None, "{}", "W/{}", '"other"', "Thu, 01 Jan 2026 00:00:00 GMT"]
)


def get(
    cache: RunningCache, wanted: Wanted, header: str, condition: str | None = None
) -> tuple[http.client.HTTPResponse, bytes]:
    """Ask with exactly this header."""
    parts = urlsplit(cache.endpoint)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    headers = {"Range": header}
    if condition is not None:
        headers["If-Range"] = condition.format(f'"{wanted.etag}"')
    try:
        connection.request("GET", parts.path + wanted.path, headers=headers)
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


def check(
    wanted: Wanted, header: str, answer: http.client.HTTPResponse, body: bytes, whole: bool
) -> None:
    """Compare an answer with what the reference says of the header."""
    spans = "whole" if whole else reference.asked(header.strip(" \t"), wanted.size)
    kind = answer.getheader("Content-Type") or ""
    if spans == "unsatisfiable":
        assert answer.status == 416
        assert answer.getheader("Content-Range") == f"bytes */{wanted.size}"
    elif spans == "whole" or (answer.status == 200 and len(spans) > 1):
        assert answer.status == 200
        assert body == wanted.content.read(0, wanted.size)
    elif kind.startswith("multipart/"):
        assert answer.status == 206 and len(spans) > 1
        check_parts(wanted, header, kind, body, spans)
    else:
        assert answer.status == 206
        start, end = min(s for s, _ in spans), max(e for _, e in spans)
        assert answer.getheader("Content-Range") == f"bytes {start}-{end - 1}/{wanted.size}"
        assert body == wanted.content.read(start, end - start)


@settings(max_examples=250 * SCALE, deadline=None)
@given(st.sampled_from(SIZES), HEADERS, CONDITIONS)
def test_what_is_kept_is_answered_by_the_standard(
    site: Site, size: int, header: str, condition: str | None
) -> None:
    wanted = site.kept[size]
    answer, body = get(site.cache, wanted, header, condition)
    check(wanted, header, answer, body, whole=condition not in (None, "{}"))


@settings(max_examples=15 * SCALE, deadline=None)
@given(st.integers(MIB + 1, 3 * MIB), st.lists(HEADERS, min_size=1, max_size=3))
def test_what_is_not_there_yet_is_answered_by_the_standard(
    site: Site, size: int, headers: list[str]
) -> None:
    number = len(site.hub.catalogue.all("models"))
    [wanted] = add_repo(site.hub, f"fuzz/cold-{number}", {"file.bin": BigFile(size, number)})
    for header in headers:
        answer, body = get(site.cache, wanted, header)
        check(wanted, header, answer, body, whole=False)


def test_the_reference_reads_the_examples_of_the_standard() -> None:
    assert reference.asked("bytes=0-499", 10000) == [(0, 500)]
    assert reference.asked("bytes=-500", 10000) == [(9500, 10000)]
    assert reference.asked("bytes=9500-", 10000) == [(9500, 10000)]
    assert reference.asked("bytes=0-0,-1", 10000) == [(0, 1), (9999, 10000)]
    assert reference.asked("bytes= 0-999, 4500-5499, -1000", 10000) == [
        (0, 1000), (4500, 5500), (9000, 10000),
    ]  # fmt: skip
    assert reference.asked("bytes=10000-", 10000) == "unsatisfiable"
    assert reference.asked("bytes=5-3", 10000) == "whole"
