"""URLs that people see: of the Hub, never of this cache, and readable for the client that asked."""

from __future__ import annotations

from typing import Any

import pytest

from jupyter_hf_cache.protocol.shown_urls import client_release, show_urls

HUB = "https://huggingface.co"
OWN = "https://hub.example/base"
NEW, OLD = (1, 20), (1, 19)


@pytest.mark.parametrize(
    ("user_agent", "expected"),
    [
        ("unknown/None; hf_hub/2.4.0; python/3.11.2; hf_xet/1.8.0", (2, 4)),
        ("hf_hub/0.36.2", (0, 36)),
        ("hf_hub/1.20.0.dev0", (1, 20)),
        ("@huggingface/hub 2.17.5", None),
        ("my_hf_hub/1.0", None),
        ("hf_hub/x.y", None),
        ("", None),
    ],
)
def test_the_release_is_read_from_the_user_agent(
    user_agent: str, expected: tuple[int, int] | None
) -> None:
    assert client_release(user_agent) == expected


@pytest.mark.parametrize(
    ("release", "key", "url", "expected"),
    [
        # A client that knows the short name gets it: nothing of it is replaced by the endpoint.
        (NEW, "url", f"{HUB}/o/n", "https://hf.co/o/n"),
        (NEW, "url", f"{HUB}/buckets/o/n", "https://hf.co/buckets/o/n"),
        (NEW, "commitUrl", f"{HUB}/datasets/o/n/commit/c", "https://hf.co/datasets/o/n/commit/c"),
        # An older one finds the type of the repo before the owner.
        (OLD, "url", f"{HUB}/o/n", "hf://o/n"),
        (OLD, "url", f"{HUB}/datasets/o/n", "hf://datasets/o/n"),
        (OLD, "commitUrl", f"{HUB}/o/n/commit/c", f"{HUB}//o/n/commit/c"),
        (OLD, "commitUrl", f"{HUB}/spaces/o/n/commit/c", f"{HUB}/spaces/o/n/commit/c"),
        # No client knows the name of another Hub.
        (NEW, "url", f"{OWN}/o/n", "hf://o/n"),
        (OLD, "commitUrl", f"{OWN}/o/n/commit/c", "hf://o/n/commit/c"),
        (NEW, "commitUrl", f"{OWN}/spaces/o/n/commit/c", "hf://spaces/o/n/commit/c"),
        # Who is not huggingface_hub takes what the Hub wrote.
        (None, "url", f"{HUB}/o/n", f"{HUB}/o/n"),
        (None, "commitUrl", f"{OWN}/o/n/commit/c", f"{OWN}/o/n/commit/c"),
        # What is nobody's address stays as it is.
        (NEW, "url", "https://elsewhere.example/o/n", "https://elsewhere.example/o/n"),
        (
            NEW,
            "url",
            "https://huggingface.co.evil.example/o",
            "https://huggingface.co.evil.example/o",
        ),
        (NEW, "url", "https://hub.example/other/o/n", "https://hub.example/other/o/n"),
        (NEW, "url", "/o/n", "/o/n"),
        (NEW, "url", 3, 3),
        (OLD, "pullRequestUrl", f"{HUB}/o/n/discussions/1", f"{HUB}/o/n/discussions/1"),
        (NEW, "other", f"{HUB}/o/n", f"{HUB}/o/n"),
    ],
)
def test_urls_name_the_hub_in_a_form_the_client_reads(
    release: tuple[int, int] | None, key: str, url: Any, expected: Any
) -> None:
    body = {key: url, "success": True}
    assert show_urls(body, OWN, release) == {key: expected, "success": True}


@pytest.mark.parametrize("body", [None, [], [{"url": f"{HUB}/o/n"}], "x", 3])
def test_other_json_is_left_alone(body: Any) -> None:
    assert show_urls(body, HUB, NEW) == body
