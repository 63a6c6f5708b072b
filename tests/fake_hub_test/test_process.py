"""The fake Hub as a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import requests

ROOT = Path(__file__).parents[2]


def test_the_process_says_where_it_is_and_ends_when_told() -> None:
    command = [sys.executable, "-m", "tests.fake_hub", "--big", "2", "--total-rate", "100"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            place = json.loads(process.stdout.readline())
            url = f"{place['url']}/bench/big-2/resolve/main/model.bin"
            answer = requests.get(url, timeout=10)
            assert len(answer.content) == 2 << 20
            assert answer.url.startswith(place["cdn_url"])
        finally:
            process.terminate()
        process.wait(10)
