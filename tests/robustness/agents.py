"""The real clients, each held open for many downloads.

Responsible for: huggingface_hub in its releases, hf_transfer and curl, one call at a time on one
file, saying what came of it, and that nothing wrong lies where a complete file would.
Not responsible for: what the upstream does meanwhile (`lies`), or the environments
(`clients.environments`).
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Protocol

from clients.environments import Client, environment
from robustness.wanted import Wanted, Wrong

CALL_SECONDS = 120.0
# A resume that was answered with the whole file, which curl refuses to join to what it has.
_CURL_CANNOT_RESUME = 33

_SCRIPT = """
import hashlib, json, sys, threading, warnings
warnings.simplefilter("ignore")
import huggingface_hub.constants
# hf_transfer is used from five chunks on; smaller chunks than 10 MB do for smaller files.
huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = 1 << 20
from concurrent.futures import ThreadPoolExecutor

lock = threading.Lock()

def call(order):
    try:
        path = huggingface_hub.hf_hub_download(order["repo"], order["name"])
        with open(path, "rb") as file:
            answer = {"sha256": hashlib.sha256(file.read()).hexdigest()}
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"[:300]}
    with lock:
        print(json.dumps({"number": order["number"], **answer}), flush=True)

with ThreadPoolExecutor(32) as pool:
    for line in sys.stdin:
        pool.submit(call, json.loads(line))
"""


class Agent(Protocol):
    """A client. `fetch` may be called from several threads, for different files."""

    name: str

    def fetch(self, wanted: Wanted) -> str | None:
        """Download one file; None when it is there and right, else why it is not there.

        Raises:
            Wrong: it is there and wrong.
        """
        ...

    def again(self, wanted: Wanted) -> str | None:
        """What a user does next: the same, or what the error said; as `fetch`."""
        ...

    def close(self) -> None:
        """End what runs."""
        ...


class HubAgent:
    """huggingface_hub of one environment, in a process of its own.

    Args:
        name: of the environment, "+transfer" behind it for hf_transfer.
        root: a directory for its home.
    """

    def __init__(self, name: str, root: Path, endpoint: str) -> None:
        self.name = name
        env, _, extra = name.partition("+")
        settings = {"HF_HUB_DISABLE_XET": "1", "PYTHONUNBUFFERED": "1"}
        if extra == "transfer":
            settings["HF_HUB_ENABLE_HF_TRANSFER"] = "1"
        client = Client(env, root, endpoint, settings)
        root.mkdir(parents=True, exist_ok=True)
        self._hub = root / "hf" / "hub"
        self._lock = threading.Lock()
        self._calls: dict[int, Future[dict[str, str]]] = {}
        self._process = subprocess.Popen(
            [str(environment(env) / "python"), "-c", _SCRIPT],
            env=client.environ,
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        # hf_transfer asks for ranges only, which are refused for a file of which damaged bytes were
        # given out; its message says to do without it.
        self._plain = HubAgent(env, root, endpoint) if extra else None

    def fetch(self, wanted: Wanted) -> str | None:
        """See `Agent`."""
        answer: Future[dict[str, str]] = Future()
        with self._lock:
            number = len(self._calls)
            self._calls[number] = answer
            order = {"number": number, "repo": wanted.repo, "name": wanted.name}
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        said = answer.result(CALL_SECONDS)
        self._check_disk(wanted)
        if "error" in said:
            return said["error"]
        if said["sha256"] != wanted.content.sha256():
            raise Wrong(f"{self.name} took a wrong {wanted.path} for complete")
        return None

    def again(self, wanted: Wanted) -> str | None:
        """See `Agent`."""
        words = self.fetch(wanted)
        return words if words is None or self._plain is None else self._plain.fetch(wanted)

    def _check_disk(self, wanted: Wanted) -> None:
        """A file in the client's `blobs/` counts as complete and is never looked at again."""
        blobs = self._hub / f"models--{wanted.repo.replace('/', '--')}" / "blobs"
        for path in blobs.glob(wanted.etag):
            if hashlib.sha256(path.read_bytes()).hexdigest() != wanted.content.sha256():
                raise Wrong(f"{self.name} has a wrong {wanted.path} in its cache")

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            self._calls[said.pop("number")].set_result(said)
        for call in self._calls.values():
            if not call.done():
                call.set_result({"error": "the client has ended"})

    def close(self) -> None:
        """See `Agent`."""
        if self._plain is not None:
            self._plain.close()
        self._process.kill()
        self._process.wait()
        self._listener.join(10)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


class CurlAgent:
    """`curl -C -`, which goes on with whatever lies there.

    Args:
        root: an empty directory for what it downloads.
    """

    name = "curl"

    def __init__(self, root: Path, endpoint: str) -> None:
        self._root = root
        self._endpoint = endpoint
        root.mkdir(parents=True)

    def fetch(self, wanted: Wanted) -> str | None:
        """See `Agent`. What curl cannot resume it is told to begin anew the next time."""
        target = self._root / f"{wanted.repo}-{wanted.name}".replace("/", "-")
        url = self._endpoint + wanted.path
        done = subprocess.run(
            ["curl", "-sSf", "--noproxy", "*", "-m", "60", "-C", "-", "-o", str(target), url],
            capture_output=True,
            text=True,
            timeout=CALL_SECONDS,
        )
        data = target.read_bytes() if target.exists() else b""
        right = wanted.content.read(0, wanted.size)
        if done.returncode == 0 or len(data) >= wanted.size:
            if data != right:
                raise Wrong(f"curl took a wrong {wanted.path} for complete")
            return None
        if done.returncode == _CURL_CANNOT_RESUME:
            target.unlink()
        return f"{done.returncode}: {done.stderr.strip()}"

    def again(self, wanted: Wanted) -> str | None:
        """See `Agent`."""
        return self.fetch(wanted)

    def close(self) -> None:
        """See `Agent`."""


NAMES = ("hub2", "hub1", "hub0", "hub0+transfer", "curl")


def agent(name: str, root: Path, endpoint: str) -> Agent:
    """Start the client of this name."""
    return CurlAgent(root, endpoint) if name == "curl" else HubAgent(name, root, endpoint)
