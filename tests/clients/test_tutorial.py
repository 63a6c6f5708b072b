"""The tutorial of Pulp's Hugging Face plugin, command for command.

Only host, credentials and the Hub's address are others. Each command runs in a shell, with real
curl, `hf`, `huggingface-cli` and transformers: beside the stand-alone server and a Jupyter server,
from another host, and through nginx.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import requests
from clients.environments import Client, has_package
from clients.places import nginx, other_host
from clients.server import JupyterServer, ServerProcess, StandAloneServer
from fake_hub import FakeHub
from pulp_server import DISTRIBUTIONS, REMOTES

pytestmark = pytest.mark.clients

CREATE_REMOTE = """
curl -X POST https://your-pulp-instance.com/pulp/api/v3/remotes/hugging_face/hugging-face/ \
  -H "Content-Type: application/json" \
  -u admin:password \
  -d '{
    "name": "hf-remote",
    "url": "https://huggingface.co",
    "policy": "on_demand"
  }'
"""
CREATE_DISTRIBUTION = """
curl -X POST https://your-pulp-instance.com/pulp/api/v3/distributions/hugging_face/hugging-face/ \
  -H "Content-Type: application/json" \
  -u admin:password \
  -d "{
    \\"name\\": \\"hf-cache\\",
    \\"base_path\\": \\"huggingface\\",
    \\"remote\\": \\"$REMOTE_HREF\\"
  }"
"""
DOWNLOAD = """
curl -O http://your-pulp-instance/pulp/content/huggingface/microsoft/DialoGPT-medium/resolve/main/config.json
"""
MODEL_INFO = """
curl http://your-pulp-instance/pulp/content/huggingface/api/models/microsoft/DialoGPT-medium
"""
LIST_FILES = """
curl http://your-pulp-instance/pulp/content/huggingface/api/models/bert-base-uncased/tree/main
"""
SET_ENDPOINT = """
export HF_ENDPOINT="http://your-pulp-instance/pulp/content/huggingface"
"""
COMMAND_LINE = "huggingface-cli download hf-internal-testing/tiny-random-bert"
NEW_COMMAND_LINE = "hf download hf-internal-testing/tiny-random-bert"
TRANSFORMERS = """
python -c "
from transformers import AutoModel
model = AutoModel.from_pretrained('bert-base-uncased')
"
"""
CREATE_AUTHENTICATED_REMOTE = """
curl -X POST https://your-pulp-instance.com/pulp/api/v3/remotes/hugging_face/hugging-face/ \
  -H "Content-Type: application/json" \
  -u admin:password \
  -d '{
    "name": "hf-private",
    "url": "https://huggingface.co",
    "policy": "on_demand",
    "hf_token": "hf_YOUR_TOKEN_HERE"
  }'
"""

TOKEN = "hf_reader"
ABROAD = {"allow_anonymous": "network"}
PROXIED = {**ABROAD, "trusted_proxies": ["127.0.0.1"]}


class Tutorial:
    """Somebody who follows the tutorial at one place.

    Args:
        host: what stands for "your-pulp-instance".
        home: where the commands run.
        inside: the command they are run by.
    """

    def __init__(
        self,
        server: ServerProcess,
        hub: FakeHub,
        host: str,
        home: Path,
        inside: tuple[str, ...] = (),
    ) -> None:
        self.server, self.hub, self.host, self.home, self.inside = server, hub, host, home, inside
        home.mkdir()
        # The commands stay as they are; how curl tells the status is its user's own taste.
        settings = ('write-out = "\\n%{http_code}"', "silent", "show-error", 'noproxy = "*"')
        (home / ".curlrc").write_text("\n".join(settings), encoding="utf-8")

    def type(self, command: str, *, at: str = "hub0", **variables: str) -> str:
        """Run a command of the tutorial in the environment `at`; what it printed."""
        known = {
            "https://your-pulp-instance.com": self.host,
            "http://your-pulp-instance": self.host,
            "admin:password": f"admin:{self.server.password}",
            "https://huggingface.co": self.hub.url,
            "hf_YOUR_TOKEN_HERE": TOKEN,
        }
        for old, new in known.items():
            command = command.replace(old, new)
        unset = "http://127.0.0.1:9"
        client = Client(at, self.home, unset, {**variables}, self.inside)
        return client.shell(command.strip()).stdout

    def curl(self, command: str, **variables: str) -> tuple[int, Any]:
        """Run a curl command; status and parsed body."""
        body, _, status = self.type(command, **variables).rpartition("\n")
        return int(status), json.loads(body) if body.startswith(("{", "[")) else body

    @cached_property
    def remote(self) -> tuple[int, Any]:
        """The answer to the tutorial's first command."""
        return self.curl(CREATE_REMOTE)

    @cached_property
    def distribution(self) -> tuple[int, Any]:
        """The answer to its second."""
        return self.curl(CREATE_DISTRIBUTION, REMOTE_HREF=self.remote[1]["pulp_href"])

    @cached_property
    def private(self) -> tuple[int, Any]:
        """The answer to its last."""
        return self.curl(CREATE_AUTHENTICATED_REMOTE)

    @cached_property
    def private_content(self) -> str:
        """A distribution of the last remote; the address of a private file there."""
        command = CREATE_DISTRIBUTION.replace("hf-cache", "hf-secret")
        command = command.replace('"huggingface\\"', '"private\\"')
        status, body = self.curl(command, REMOTE_HREF=self.private[1]["pulp_href"])
        assert status == 202, body
        return f"{body['base_url']}org/private/resolve/main/config.json"


def _stand_alone(stack: ExitStack, root: Path, hub: FakeHub) -> tuple[ServerProcess, str]:
    server = stack.enter_context(StandAloneServer(root, hub.url))
    return server, server.host


def _jupyter(stack: ExitStack, root: Path, hub: FakeHub) -> tuple[ServerProcess, str]:
    server = stack.enter_context(JupyterServer(root, hub.url))
    return server, server.host


def _proxied_stand_alone(stack: ExitStack, root: Path, hub: FakeHub) -> tuple[ServerProcess, str]:
    server = stack.enter_context(StandAloneServer(root, hub.url, options=PROXIED))
    return server, stack.enter_context(nginx(root / "nginx", server, "/some/where"))


def _proxied_jupyter(stack: ExitStack, root: Path, hub: FakeHub) -> tuple[ServerProcess, str]:
    server = stack.enter_context(JupyterServer(root, hub.url, options=PROXIED))
    return server, stack.enter_context(nginx(root / "nginx", server))


HERE = {
    "stand-alone": _stand_alone,
    "jupyter": _jupyter,
    "stand-alone-behind-nginx": _proxied_stand_alone,
    "jupyter-behind-nginx": _proxied_jupyter,
}
ELSEWHERE = {
    "stand-alone-from-another-host": StandAloneServer,
    "jupyter-from-another-host": JupyterServer,
}
PLACES = [
    "stand-alone",
    "jupyter",
    *(pytest.param(name, marks=pytest.mark.network) for name in [*list(HERE)[2:], *ELSEWHERE]),
]


@pytest.fixture(scope="module", params=PLACES)
def tutorial(
    request: pytest.FixtureRequest, hub: FakeHub, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tutorial]:
    root = tmp_path_factory.mktemp("tutorial")
    with ExitStack() as stack:
        if request.param in HERE:
            server, host = HERE[request.param](stack, root / "server", hub)
            yield Tutorial(server, hub, host, root / "home")
            return
        place = stack.enter_context(other_host())
        kind = ELSEWHERE[request.param]
        server = kind(root / "server", hub.url, options=ABROAD, ip="0.0.0.0")
        stack.enter_context(server)
        host = server.host.replace("127.0.0.1", place.address)
        yield Tutorial(server, hub, host, root / "home", place.inside)


def test_create_a_remote(tutorial: Tutorial) -> None:
    status, body = tutorial.remote
    assert status == 201
    uuid.UUID(body["pulp_href"].removeprefix(REMOTES).removesuffix("/"))
    assert body["pulp_created"].endswith("Z")
    shown = {key: body[key] for key in ("name", "url", "policy", "hf_token")}
    assert shown == {
        "name": "hf-remote", "url": tutorial.hub.url, "policy": "on_demand", "hf_token": None,
    }  # fmt: skip


def test_create_a_distribution(tutorial: Tutorial) -> None:
    status, body = tutorial.distribution
    assert status == 202
    uuid.UUID(body["pulp_href"].removeprefix(DISTRIBUTIONS).removesuffix("/"))
    assert (body["name"], body["base_path"]) == ("hf-cache", "huggingface")
    assert body["base_url"] == f"{tutorial.host}/pulp/content/huggingface/"
    assert body["remote"] == tutorial.remote[1]["pulp_href"]
    # Clients that are made for Pulp wait for the task.
    status, task = tutorial.curl(f"curl -u admin:password http://your-pulp-instance{body['task']}")
    assert (status, task["state"]) == (200, "completed")
    assert task["created_resources"] == [body["pulp_href"]]


def test_download_a_model_file(tutorial: Tutorial) -> None:
    assert tutorial.distribution
    assert tutorial.curl(DOWNLOAD)[0] == 200
    config = json.loads((tutorial.home / "config.json").read_text(encoding="utf-8"))
    assert config == {
        "architectures": ["GPT2LMHeadModel"],
        "bos_token_id": 50256,
        "eos_token_id": 50256,
        "model_type": "gpt2",
        "n_ctx": 1024,
        "n_embd": 1024,
        "n_head": 16,
        "n_layer": 24,
        "vocab_size": 50257,
    }


def test_query_model_metadata(tutorial: Tutorial) -> None:
    assert tutorial.distribution
    status, body = tutorial.curl(MODEL_INFO)
    assert status == 200
    head = tutorial.hub.catalogue.get("models", "microsoft/DialoGPT-medium").head
    keys = ("id", "modelId", "author", "sha", "tags", "downloads")
    assert {key: body[key] for key in keys} == {
        "id": "microsoft/DialoGPT-medium",
        "modelId": "microsoft/DialoGPT-medium",
        "author": "microsoft",
        "sha": head.sha,
        "tags": ["pytorch", "gpt2", "text-generation", "conversational"],
        "downloads": 500_000,
    }


def test_list_repository_files(tutorial: Tutorial) -> None:
    assert tutorial.distribution
    status, rows = tutorial.curl(LIST_FILES)
    assert status == 200
    files = tutorial.hub.catalogue.get("models", "bert-base-uncased").head.files
    assert {row["path"]: (row["type"], row["size"]) for row in rows} == {
        path: ("file", entry.size) for path, entry in files.items()
    }


def test_download_with_the_command_line(tutorial: Tutorial) -> None:
    assert tutorial.distribution
    for at, command in (("hub0", COMMAND_LINE), ("hub2", NEW_COMMAND_LINE)):
        tutorial.hub.counters.reset()
        home = tutorial.home / at
        tutorial.type(f"{SET_ENDPOINT}{command}", at=at, HF_HOME=str(home))
        kept = home / "hub" / "models--hf-internal-testing--tiny-random-bert"
        names = {path.name for path in kept.glob("snapshots/*/*")}
        assert {"config.json", "tokenizer.json", "vocab.txt"} < names
    # The second of them, which had nothing of its own yet, took no file from the Hub.
    assert tutorial.hub.counters.count("GET", "/resolve") == 0
    assert tutorial.hub.counters.bytes("cdn") == 0


def test_load_a_model(tutorial: Tutorial) -> None:
    if not has_package("ml", "torch"):
        pytest.skip("group clients: the environment ml has no torch")
    assert tutorial.distribution
    tutorial.hub.counters.reset()
    tutorial.type(f"{SET_ENDPOINT}{TRANSFORMERS}", at="ml")
    kept = tutorial.home / "hf" / "hub" / "models--bert-base-uncased"
    assert list(kept.glob("snapshots/*/config.json"))


def test_private_repositories(tutorial: Tutorial) -> None:
    status, body = tutorial.private
    assert status == 201
    assert body["name"] == "hf-private"
    assert body["hf_token"] and TOKEN not in json.dumps(body)
    assert {"name": "hf_token", "is_set": True} in body["hidden_fields"]
    status, listed = tutorial.curl(f"curl -u admin:password http://your-pulp-instance{REMOTES}")
    assert status == 200 and TOKEN not in json.dumps(listed)
    # The token opens the repo for whoever has the server's password, and for nobody else.
    url = tutorial.private_content
    assert tutorial.curl(f"curl -u admin:password {url}") == (200, {"model_type": "bert"})
    assert tutorial.curl(f"curl {url}")[0] == 401
    assert tutorial.curl(f"curl -u admin:wrong {url}")[0] == 401
    for file in tutorial.server.root.rglob("*"):
        if file.is_file() and file.stat().st_size < 1 << 20:
            assert TOKEN.encode() not in file.read_bytes(), file


def test_everything_is_there_after_a_restart(tutorial: Tutorial) -> None:
    assert tutorial.distribution and tutorial.private_content
    tutorial.server.restart()
    _, remotes = tutorial.curl(f"curl -u admin:password http://your-pulp-instance{REMOTES}")
    _, served = tutorial.curl(f"curl -u admin:password http://your-pulp-instance{DISTRIBUTIONS}")
    assert {entry["name"] for entry in remotes["results"]} >= {"hf-remote", "hf-private", "default"}
    before = tutorial.distribution[1]
    after = next(entry for entry in served["results"] if entry["name"] == "hf-cache")
    assert {key: before[key] for key in after} == after
    assert tutorial.curl(f"curl -u admin:password {tutorial.private_content}")[0] == 200
    tutorial.hub.counters.reset()
    test_download_a_model_file(tutorial)
    assert tutorial.hub.counters.count("GET", "/resolve") == 0


@pytest.mark.network
def test_another_host_gets_public_content_and_nothing_else(hub: FakeHub, tmp_path: Path) -> None:
    with (
        other_host() as place,
        StandAloneServer(tmp_path / "server", hub.url, options=ABROAD, ip="0.0.0.0") as server,
    ):
        host = server.host.replace("127.0.0.1", place.address)
        visitor = Tutorial(server, hub, host, tmp_path / "home", place.inside)
        file = "http://your-pulp-instance/pulp/content/hf/{}/resolve/main/config.json"
        bearer = f'-H "Authorization: Bearer {TOKEN}"'
        assert visitor.curl(f"curl {file.format('bert-base-uncased')}")[0] == 200
        assert visitor.curl(f"curl {file.format('org/private')}")[0] == 401
        # From afar a token of the Hub is no entrance, and opens nothing.
        assert visitor.curl(f"curl {bearer} {file.format('org/private')}")[0] == 401
        status, _ = visitor.curl(
            f"curl {bearer} -X POST -d '{{}}' http://your-pulp-instance/pulp/content/hf/api/repos/create"
        )
        assert status in (401, 403)
        assert visitor.curl(f"curl http://your-pulp-instance{REMOTES}")[0] == 401
        # At home the same token does what it does at the Hub.
        home = requests.get(
            f"{server.endpoint}/org/private/resolve/main/config.json",
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=30,
        )
        assert home.status_code == 200


@pytest.mark.network
def test_another_host_is_not_let_in_unasked(hub: FakeHub, tmp_path: Path) -> None:
    with (
        other_host() as place,
        StandAloneServer(tmp_path / "server", hub.url, ip="0.0.0.0") as server,
    ):
        host = server.host.replace("127.0.0.1", place.address)
        visitor = Tutorial(server, hub, host, tmp_path / "home", place.inside)
        file = (
            "http://your-pulp-instance/pulp/content/hf/bert-base-uncased/resolve/main/config.json"
        )
        assert visitor.curl(f"curl {file}")[0] == 401
        assert visitor.curl(f"curl -u admin:password {file}")[0] == 200


@pytest.mark.network
@pytest.mark.parametrize("trusted", [True, False])
def test_a_capability_passes_only_a_trusted_proxy(
    hub: FakeHub, tmp_path: Path, trusted: bool
) -> None:
    options = {"trusted_proxies": ["127.0.0.1"]} if trusted else {}
    with ExitStack() as stack:
        server = JupyterServer(tmp_path / "server", hub.url, options=options)
        stack.enter_context(server)
        host = stack.enter_context(nginx(tmp_path / "nginx", server))
        endpoint = server.endpoint.replace(server.host, host)
        assert endpoint != server.endpoint
        client = Client("hub2", tmp_path / "home", endpoint)
        hub.page_size = 100
        try:
            found = client.run("""
import huggingface_hub as hf
api = hf.HfApi()
try:
    tell([len(list(api.list_repo_tree("org/many-files", recursive=True))),
          len(files(hf.snapshot_download("org/large")))])
except hf.errors.HfHubHTTPError as refused:
    tell(refused.response.status_code)
""")
        finally:
            hub.page_size = 1000
        assert found == ([303, 4] if trusted else 401)
        log = server.text()
        assert endpoint.partition("/~")[2].partition("/")[0] not in log
