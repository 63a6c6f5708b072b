"""Every error class of huggingface_hub is raised through the cache as against the Hub itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from clients.environments import HUBS, Client, environment
from clients.server import JupyterServer
from fake_hub import FakeHub

pytestmark = pytest.mark.clients

CASES = Path(__file__).with_name("error_cases.py")
RAISED = {
    "BadRequestError",
    "DisabledRepoError",
    "EntryNotFoundError",
    "FileNotFoundError",
    "GatedRepoError",
    "HFValidationError",
    "HfHubHTTPError",
    "LocalEntryNotFoundError",
    "NotASafetensorsRepoError",
    "RepositoryNotFoundError",
    "RevisionNotFoundError",
}
AS_BY_HTTPS = {"TAKE_HTTP_FOR_HTTPS": "1"}
OTHER_WORDS = ("past the end", "file tree")
"""Cases that the cache answers by itself, in words of its own."""


@pytest.fixture(params=HUBS)
def straight(request: pytest.FixtureRequest, hub: FakeHub, tmp_path: Path) -> Client:
    """A client that asks the Hub itself."""
    return Client(request.param, tmp_path / "straight", hub.url, dict(AS_BY_HTTPS))


def through(client: Client, endpoint: str, name: str = "through") -> Client:
    """The same client on another machine, with the cache."""
    return Client(client.name, client.home.parent / name, endpoint)


def results(client: Client) -> dict[str, Any]:
    """What each case raised or returned."""
    done = client.command(str(environment(client.name) / "python"), str(CASES))
    line = next(row for row in done.stdout.splitlines() if row.startswith("RESULT"))
    found: dict[str, Any] = json.loads(line.removeprefix("RESULT"))
    for name in OTHER_WORDS:
        found[name][2] = None
    return found


def test_every_refusal_is_the_hub_s(straight: Client, server: JupyterServer) -> None:
    """Class, bases, status, the Hub's words and the cause: all that a program can tell it by."""
    expected = results(straight)
    raised = {kind for told in expected.values() if isinstance(told, list) for kind in told[0]}
    assert raised >= RAISED
    kernel = results(through(straight, server.endpoint))
    differences = {
        name: (told, kernel[name]) for name, told in expected.items() if told != kernel[name]
    }
    assert differences == {}
    again = results(through(straight, server.endpoint, "again"))
    assert again == kernel, "what is kept says the same"


def test_who_came_in_without_a_login_is_told_the_same_of_repos(
    straight: Client, server: JupyterServer
) -> None:
    """Only what is passed on wants a login."""
    expected = results(straight)
    stranger = results(through(straight, f"{server.content}/hf"))
    passed_on = ("discussions", "whoami", "create as nobody")
    for name, told in expected.items():
        if name.endswith(passed_on) and stranger[name] != told:
            assert "Without signing in" in stranger[name][2], name
        else:
            assert stranger[name] == told, name


LIMITED = """
import huggingface_hub as hf
tell({
    "page": error(hf.model_info, "org/limited"),
    "file": error(hf.hf_hub_download, "org/limited", "config.json"),
})
"""


def test_a_rate_limit_is_waited_for_or_told(
    hub: FakeHub, straight: Client, server: JupyterServer
) -> None:
    limit = {"RateLimit": '"api";r=0;t=1', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}
    told = []
    for client in (straight, through(straight, server.endpoint)):
        repo = hub.catalogue.get("models", "org/limited") or hub.repo("models", "org/limited")
        repo.commit({"config.json": f'{{"of": "{client.name} {client.home.name}"}}'})
        for path in ("/api/models/org/limited", "/org/limited/resolve/"):
            hub.fault("status", path, status=429, message="Too Many Requests", headers=limit)
        try:
            told.append(client.run(LIMITED))
        finally:
            hub.faults.clear()
    assert told[1]["page"] == told[0]["page"]
    assert told[0]["page"][0] == "HfHubHTTPError"
    assert told[1]["file"] in (told[0]["file"], []), "the cache may have waited for the client"


def test_an_outage_leaves_the_client_to_what_it_has(
    hub: FakeHub, straight: Client, server: JupyterServer
) -> None:
    kernel = through(straight, server.endpoint)
    has = "import huggingface_hub as hf\nhf.hf_hub_download('org/large', 'README.md')\n"
    kernel.run(f"{has}tell(1)")
    hub.pause()
    try:
        told = kernel.run(f"""{has}
try:
    hf.hf_hub_download("org/strange-names", "+plus.txt")
except Exception as problem:
    tell([type(problem).__name__, str(problem.__cause__)])
""")
    finally:
        hub.resume()
    assert told[0] == "LocalEntryNotFoundError"
    assert "521" in told[1]


def test_a_client_that_is_offline_asks_nobody(
    hub: FakeHub, straight: Client, server: JupyterServer
) -> None:
    kernel = through(straight, server.endpoint)
    kernel.settings["HF_HUB_OFFLINE"] = "1"
    hub.counters.reset()
    told = kernel.run("""
import huggingface_hub as hf
tell([
    error(hf.model_info, "org/large")[0],
    error(hf.hf_hub_download, "org/large", "README.md")[0],
])
""")
    assert told == ["OfflineModeIsEnabled", "LocalEntryNotFoundError"]
    assert hub.counters.requests == []


LIBRARIES = """
import importlib, os, re
if os.environ.get("TAKE_HTTP_FOR_HTTPS"):
    http = importlib.import_module("huggingface_hub.utils._http")
    http.REPO_API_REGEX = re.compile(
        http.REPO_API_REGEX.pattern.replace("https://", "https?://"), flags=re.VERBOSE)
from datasets import load_dataset
from transformers import AutoConfig, AutoModel, AutoTokenizer
def words(call, *args, **named):
    try:
        call(*args, **named)
    except Exception as problem:
        text = re.sub(r"Request ID: [^)]*", "ID", str(problem).replace(os.getcwd(), "HOME"))
        for endpoint in (os.environ["HF_ENDPOINT"], os.environ["HUB"]):
            text = text.replace(endpoint, "ENDPOINT")
        return [kind.__name__ for kind in type(problem).__mro__] + [text]
tell({
    "config, absent": words(AutoConfig.from_pretrained, "org/no"),
    "config, private": words(AutoConfig.from_pretrained, "org/private"),
    "config, private, signed in": words(AutoConfig.from_pretrained, "org/private", token="hf_bob"),
    "config, gated": words(AutoConfig.from_pretrained, "org/gated"),
    "config, gated, signed in": words(AutoConfig.from_pretrained, "org/gated", token="hf_bob"),
    "config, revision": words(AutoConfig.from_pretrained, "bert-base-uncased", revision="no"),
    "config, none": words(AutoConfig.from_pretrained, "org/strange-names"),
    "model, no weights": words(AutoModel.from_pretrained, "org/many-files"),
    "tokenizer, absent": words(AutoTokenizer.from_pretrained, "org/no"),
    "dataset, absent": words(load_dataset, "org/no"),
    "dataset, private": words(load_dataset, "org/private-data"),
    "dataset, private, signed in": words(load_dataset, "org/private-data", token="hf_bob"),
    "dataset, gated": words(load_dataset, "org/gated-data"),
    "dataset, gated, signed in": words(load_dataset, "org/gated-data", token="hf_bob"),
    "dataset, revision": words(load_dataset, "org/tables", revision="no"),
    "dataset, file": words(load_dataset, "org/tables", data_files="no.csv"),
})
"""


def test_libraries_say_what_they_say_without_the_cache(
    hub: FakeHub, server: JupyterServer, tmp_path: Path
) -> None:
    gated = hub.repo("datasets", "org/gated-data", gated="auto")
    gated.commit({"train.csv": "text\nrow\n"})
    environ = {"HUB": hub.url}
    ml = Client("ml", tmp_path / "straight", hub.url, environ | AS_BY_HTTPS)
    straight = ml.run(LIBRARIES)
    kernel = Client("ml", tmp_path / "through", server.endpoint, environ).run(LIBRARIES)
    assert kernel == straight
    assert straight["dataset, absent"][0] == "DatasetNotFoundError"
    assert all(told and told[-1] for told in straight.values())
