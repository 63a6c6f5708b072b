"""The generated client of Pulp's plugin against the REST API.

`HF_CACHE_TEST_CLIENTS` names a directory in which `pulp/` is a virtual environment with
`pulp-hugging-face-client`.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from pulp_server import ADMIN, pulp_server

SCRIPT = """
import json, sys, urllib3
from base64 import b64encode
from pulpcore.client.pulp_hugging_face import (
    ApiClient, Configuration, DistributionsHuggingFaceApi, HuggingFaceHuggingFaceDistribution,
    HuggingFaceHuggingFaceRemote, PatchedhuggingFaceHuggingFaceRemote, RemotesHuggingFaceApi,
    SetLabel, UnsetLabel,
)
from pulpcore.client.pulp_hugging_face.exceptions import (
    BadRequestException, NotFoundException, UnauthorizedException,
)

host, user, password = sys.argv[1:]
client = ApiClient(Configuration(host=host, username=user, password=password))
remotes, distributions = RemotesHuggingFaceApi(client), DistributionsHuggingFaceApi(client)

remote = remotes.create(HuggingFaceHuggingFaceRemote(name="r", url="https://huggingface.co"))
assert remote.policy == "on_demand" and remote.pulp_href.startswith("/pulp/api/v3/")
read = remotes.read(remote.pulp_href)
assert read.name == "r" and read.pulp_created == remote.pulp_created
page = remotes.list(name="r")
assert page.count == 1 and page.results[0].pulp_href == remote.pulp_href
assert remotes.list(name="s").count == 0
assert remotes.list(name__in=["r", "s"], ordering=["-name"], fields=["name", "url"]).count == 1
assert remotes.list(pulp_last_updated__gte=remote.pulp_created).count == 1
patched = remotes.partial_update(
    remote.pulp_href, PatchedhuggingFaceHuggingFaceRemote(hf_token="hf_fromtheclient")
)
assert patched.hf_token and "fromtheclient" not in patched.hf_token
assert [h.is_set for h in patched.hidden_fields if h.name == "hf_token"] == [True]

created = distributions.create(HuggingFaceHuggingFaceDistribution(
    name="d", base_path="hf", remote=remote.pulp_href, hidden=False
))
answer = urllib3.request("GET", host + created.task, headers={
    "Authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()
})
task = json.loads(answer.data)
assert answer.status == 200 and task["state"] == "completed"
distribution = distributions.read(task["created_resources"][0])
assert distribution.base_url == host + "/pulp/content/hf/"
assert distribution.remote == remote.pulp_href
assert distributions.list(base_path="hf").count == 1

for api, href in ((remotes, remote.pulp_href), (distributions, distribution.pulp_href)):
    label = api.set_label(href, SetLabel(key="team", value="blue"))
    assert (label.key, label.value) == ("team", "blue")
    assert api.list(pulp_label_select="team=blue").count == 1
    label = api.unset_label(href, UnsetLabel(key="team"))
    assert label.value == "blue"
    assert api.read(href).pulp_labels == {}
try:
    distributions.create(HuggingFaceHuggingFaceDistribution(name="e", base_path="hf/x"))
    raise AssertionError("an overlap was taken")
except BadRequestException as error:
    assert "Overlaps" in error.body
try:
    RemotesHuggingFaceApi(
        ApiClient(Configuration(host=host, username=user, password="wrong"))
    ).list()
    raise AssertionError("a wrong password was taken")
except UnauthorizedException:
    pass

for api, href in ((distributions, distribution.pulp_href), (remotes, remote.pulp_href)):
    assert api.delete(href).task.startswith("/pulp/api/v3/tasks/")
    try:
        api.read(href)
        raise AssertionError("it is still there")
    except NotFoundException:
        pass
print("done")
"""


@pytest.fixture(scope="module")
def python() -> Path:
    clients = os.environ.get("HF_CACHE_TEST_CLIENTS")
    if not clients:
        pytest.skip("HF_CACHE_TEST_CLIENTS does not name a directory with client environments")
    found = Path(clients) / "pulp" / "bin" / "python"
    if not found.exists():
        pytest.skip(f"there is no environment with pulp-hugging-face-client at {found}")
    return found


@pytest.mark.clients
@pytest.mark.parametrize("base_url", ["/", "/user/alice/"])
def test_the_generated_client_works(python: Path, tmp_path: Path, base_url: str) -> None:
    with pulp_server(tmp_path, base_url) as server:
        run = subprocess.run(
            [python, "-c", SCRIPT, server.host, *ADMIN],
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert (run.returncode, run.stdout.strip()) == (0, "done"), run.stderr
        assert server.store.remotes() == server.store.distributions() == []
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"hf_fromtheclient" in content for content in written)
