"""A notebook, and a terminal, in which nobody has set anything."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from clients.environments import PRELUDE, Client, environment, has_package
from clients.server import JupyterServer, wait_for
from clients.sessions import kernel, terminal
from fake_hub import BigFile, FakeHub

pytestmark = [pytest.mark.clients, pytest.mark.jupyter]

MIB = 1 << 20
REMOTES = "pulp/api/v3/remotes/hugging_face/hugging-face/"
SPEC = "a-second-environment"
LOOK = """
import json, os
names = ("HF_ENDPOINT", "NO_PROXY", "no_proxy", "JUPYTER_HF_CACHE_FILE")
print(json.dumps({name: os.environ.get(name) for name in names}))
"""


def add_kernel(root: Path) -> None:
    """Register the Python of hub2, which has neither Jupyter's server nor this package."""
    if not has_package("hub2", "ipykernel"):
        pytest.skip("group clients: the environment hub2 has no ipykernel")
    folder = root / "data" / "kernels" / SPEC
    folder.mkdir(parents=True, exist_ok=True)
    python = str(environment("hub2") / "python")
    spec = {
        "argv": [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": SPEC,
        "language": "python",
    }
    (folder / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, hub: FakeHub) -> Iterator[JupyterServer]:
    root = tmp_path_factory.mktemp("notebook")
    add_kernel(root)
    # A proxy that does not exist: whatever would go through it fails.
    proxy = "http://127.0.0.1:9"
    environ = {"HTTP_PROXY": proxy, "http_proxy": proxy, "NO_PROXY": "example.org,127.0.0.1"}
    with JupyterServer(root, hub.url, environ=environ) as server:
        yield server


def test_a_notebook_downloads_through_the_cache(hub: FakeHub, server: JupyterServer) -> None:
    with kernel(server, SPEC) as notebook:
        hub.counters.reset()
        told = notebook.run(
            PRELUDE
            + """
from huggingface_hub import constants, hf_hub_download, snapshot_download
path = hf_hub_download("org/large", "model.bin")
folder = snapshot_download("org/xet")
print(json.dumps([constants.ENDPOINT, sha256(path), sums(folder)["same.bin"]]))
"""
        )
    endpoint, whole, same = json.loads(told)
    weights = BigFile(8 * MIB + 12345, seed=1)
    assert endpoint.startswith(f"{server.content}/~") and endpoint.endswith("/hf")
    assert whole == same == weights.sha256()
    # The file in the other repo is the same, so it came once.
    assert hub.counters.bytes("cdn") == weights.size + 5 * MIB + 1, hub.counters.summary()
    server.wait_idle()
    hub.counters.reset()
    with kernel(server, SPEC) as notebook:
        notebook.run(
            "from huggingface_hub import snapshot_download\n"
            "snapshot_download('org/large', cache_dir='another')"
        )
    fetched = hub.counters.select("GET", "model.bin", status=200)
    assert fetched == []


def test_every_kernel_and_terminal_gets_the_endpoint_and_no_proxy(server: JupyterServer) -> None:
    with kernel(server, SPEC) as first, kernel(server, "python3") as second:
        seen = [json.loads(notebook.run(LOOK)) for notebook in (first, second)]
    with terminal(server) as shell:
        printed = shell.run("echo $HF_ENDPOINT,; echo $NO_PROXY,; echo $JUPYTER_HF_CACHE_FILE,")
    assert seen[0] == seen[1]
    found = seen[0]
    assert found["HF_ENDPOINT"] == server.endpoint
    assert found["NO_PROXY"] == found["no_proxy"] == "example.org,127.0.0.1"
    runtime = json.loads(Path(found["JUPYTER_HF_CACHE_FILE"]).read_text(encoding="utf-8"))
    assert runtime["url"] == f"{server.host}/"
    assert Path(found["JUPYTER_HF_CACHE_FILE"]).stat().st_mode & 0o077 == 0
    flat = printed.replace("\r", "").replace("\n", "")
    for name in ("HF_ENDPOINT", "NO_PROXY", "JUPYTER_HF_CACHE_FILE"):
        assert f"{found[name]}," in flat


def test_the_command_line_in_a_terminal_needs_no_setting(
    hub: FakeHub, server: JupyterServer
) -> None:
    weights = BigFile(MIB + 99, seed=2001)
    hub.repo("models", "new/terminal").commit({"terminal.bin": weights})
    command = environment("hub2") / "hf"
    with terminal(server) as shell:
        shell.run(f"cd; {command} download new/terminal --local-dir here")
    assert (server.root / "here" / "terminal.bin").read_bytes() == weights.read(0, weights.size)
    kept = server.api("GET", "hf-cache/v1/repos", params={"q": "new/terminal"}).json()["results"]
    assert [entry["id"] for entry in kept] == ["new/terminal"]


def test_a_kernel_s_own_token_is_used_for_it_alone(server: JupyterServer) -> None:
    script = """
from huggingface_hub import hf_hub_download, whoami
def look():
    try:
        hf_hub_download("org/private", "config.json", cache_dir=repr(os.environ.get("HF_TOKEN")))
        return whoami()["name"]
    except Exception as refused:
        return type(refused).__name__
os.environ["HF_TOKEN"] = "hf_alice"
first = look()
del os.environ["HF_TOKEN"]
print(json.dumps([first, look()]))
"""
    with kernel(server, SPEC) as notebook:
        told = json.loads(notebook.run(PRELUDE + script))
    assert told == ["alice", "RepositoryNotFoundError"]


def test_a_notebook_without_the_cache_after_it_is_switched_off(
    hub: FakeHub, server: JupyterServer
) -> None:
    assert server.api("PUT", "hf-cache/v1/inject", json={"on": False}).status_code == 200
    try:
        with kernel(server, "python3") as notebook:
            # The user's own choice, from before Jupyter started, is back.
            assert json.loads(notebook.run(LOOK))["HF_ENDPOINT"] == hub.url
    finally:
        assert server.api("PUT", "hf-cache/v1/inject", json={"on": True}).status_code == 200


def named(server: JupyterServer, name: str) -> list[str]:
    """The addresses of the remotes of this name."""
    listed = server.api("GET", REMOTES, params={"name": name}).json()["results"]
    return [remote["pulp_href"] for remote in listed]


def test_two_servers_of_one_user_share_what_they_keep(
    hub: FakeHub, server: JupyterServer, tmp_path: Path
) -> None:
    weights = BigFile(4 * MIB + 3, seed=2002)
    both = BigFile(20 * MIB + 3, seed=2003)
    hub.repo("models", "new/shared").commit({"shared.bin": weights, "both.bin": both})
    script = """
import huggingface_hub as hf
tell(sha256(hf.hf_hub_download("new/shared", "{}")))
"""
    second = JupyterServer(server.root, hub.url, log="second.log")
    with second:
        assert second.port != server.port
        first_user = Client("hub2", tmp_path / "first", server.endpoint)
        second_user = Client("hub1", tmp_path / "second", second.endpoint)
        hub.counters.reset()
        assert first_user.run(script.format("shared.bin")) == weights.sha256()
        server.wait_idle()
        assert second_user.run(script.format("shared.bin")) == weights.sha256()
        assert hub.counters.bytes("cdn") == weights.size
        # Both at once, of a file that neither has.
        with ThreadPoolExecutor(2) as pool:
            users = (first_user, second_user)
            sums = list(pool.map(lambda user: user.run(script.format("both.bin")), users))
        assert sums == [both.sha256()] * 2
        # What one is told, the other knows.
        body = {"name": "told-to-one", "url": hub.url}
        assert server.api("POST", REMOTES, json=body).status_code == 201
        wait_for(lambda: named(second, "told-to-one") or None, "remote at the other server", 5)
        # A capability of one opens the other: both have the user's key.
        ticket = second.endpoint.partition("/~")[2]
        url = f"{server.content}/~{ticket}/new/shared/resolve/main/shared.bin"
        assert requests.head(url, timeout=30).status_code == 200
    # The end of one is not the end of the other.
    fresh = Client("hub0", tmp_path / "third", server.endpoint)
    assert fresh.run(script.format("both.bin")) == both.sha256()


def test_a_killed_server_leaves_nothing_that_stops_the_next(hub: FakeHub, tmp_path: Path) -> None:
    weights = BigFile(12 * MIB + 1, seed=2004)
    hub.repo("models", "new/killed").commit({"killed.bin": weights})
    with JupyterServer(tmp_path / "server", hub.url) as server:
        url = f"{server.endpoint}/new/killed/resolve/main/killed.bin"
        hub.fault("stall", "killed.bin", host="cdn", at=8 * MIB)
        with requests.get(url, stream=True, timeout=60) as answer:
            assert len(answer.raw.read(4 * MIB)) == 4 * MIB
            assert hub.faults.wait_until_stalled()
            server.stop(signal.SIGKILL)
        hub.faults.release()
        hub.counters.reset()
        server.start()
        client = Client("hub2", tmp_path / "home", server.endpoint)
        script = 'import huggingface_hub as hf\ntell(sha256(hf.hf_hub_download("{}", "{}")))'
        assert client.run(script.format("new/killed", "killed.bin")) == weights.sha256()
        # It goes on where it was, but for what was on its way.
        assert hub.counters.bytes("cdn", "killed.bin") < weights.size - 4 * MIB
        files = list((server.root / "runtime").glob("hf-cache-*.json"))
        assert [int(file.stem.rpartition("-")[2]) for file in files] == [server.pid]
