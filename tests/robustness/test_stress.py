"""Two servers on one cache directory, in a bad hour and in a good one."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fake_hub import FakeHub
from robustness.directory import check_at_rest
from robustness.readers import everything
from robustness.stress import server_beside, stress_round
from robustness.wanted import MIB, new_repo


@pytest.mark.timeout(300)
def test_two_servers_on_one_small_cache_serve_right_bytes_within_their_budget(
    tmp_path: Path,
) -> None:
    counts = stress_round(tmp_path, random.Random(11), seconds=8.0)
    assert counts["answers"] and counts["deleted"] and counts["faults"]


def test_what_one_server_keeps_the_other_serves(tmp_path: Path) -> None:
    with FakeHub() as hub:
        hub.rate = 8.0 * MIB
        wanted = new_repo(hub, "org/both", random.Random(5))
        servers = [server_beside(tmp_path, hub, number) for number in range(2)]
        try:
            for server in servers:
                server.start()
            with ThreadPoolExecutor(2) as pool:
                for _ in pool.map(lambda server: everything(server.endpoint, wanted), servers):
                    pass
            for server in servers:
                server.wait_idle()
            hub.counters.reset()
            for server in servers:
                everything(server.endpoint, wanted)
            assert hub.counters.count(host="cdn") == 0, hub.counters.summary()
            assert [server.stop() for server in servers] == [0, 0]
        finally:
            for server in servers:
                if server.running:
                    server.kill()
        assert check_at_rest(tmp_path / "server-0", hub.url) == sum(one.size > 0 for one in wanted)
