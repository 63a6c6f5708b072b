"""Real clients behind the cache never hold a wrong file, whatever the upstream sends."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from clients.environments import environment
from robustness.agents import NAMES
from robustness.lies import LIES, lies_round

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]
# Those after which the cache gives up at once; the others are asked again for up to a minute by the
# clients, and belong in the long form.
SLOW = ("truncate", "html", "longer", "wrong-range", "small-truncate", "small-html", "html-head")
QUICK = [lie for lie in LIES if lie not in SLOW]


@pytest.fixture
def clients() -> list[str]:
    for name in ("hub2", "hub1", "hub0"):
        environment(name)
    return list(NAMES)


def test_one_lie_is_seen_through(tmp_path: Path, clients: list[str]) -> None:
    counts = lies_round(tmp_path, random.Random(1), clients=clients, times=1)
    assert counts["trials"] == len(NAMES) * len(LIES)
    assert counts["right"], "some are not noticed by the client at all"


def test_who_goes_on_lying_is_not_believed(tmp_path: Path, clients: list[str]) -> None:
    counts = lies_round(tmp_path, random.Random(2), clients=clients, lies=QUICK)
    assert counts["trials"] == len(NAMES) * len(QUICK)
    assert counts["failed"], "nobody can make a right file of lies alone"


def test_who_shares_a_bad_download_shares_no_bad_file(tmp_path: Path, clients: list[str]) -> None:
    lies = ["flip-head", "swapped", "bad-head-good-tail", "new-version-midway"]
    counts = lies_round(
        tmp_path, random.Random(3), clients=clients, lies=lies, times=1, workers=2, shared=True
    )
    assert counts["trials"] == len(NAMES) * len(lies)
