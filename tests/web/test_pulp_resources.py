"""Remotes, distributions, tasks and status of the REST API."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pulp_server import API, DISTRIBUTIONS, REMOTES, TASKS, PulpServer, pulp_server

MASK = "********"
TOKEN = "hf_THISISTHETOKEN"
SECRETS: dict[str, Any] = {
    "hf_token": TOKEN,
    "client_key": "THISISTHEKEY",
    "proxy_username": "THISISTHEPROXYUSER",
    "proxy_password": "THISISTHEPROXYPASSWORD",
    "username": "THISISTHEUSER",
    "password": "THISISTHEPASSWORD",
    "headers": [{"X-Key": "THISISTHEHEADER"}],
}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PulpServer]:
    with pulp_server(tmp_path) as running:
        yield running


def test_the_tutorial_creates_a_remote(server: PulpServer) -> None:
    answer = server.call(
        "POST",
        REMOTES,
        {"name": "hf-remote", "url": "https://huggingface.co", "policy": "on_demand"},
    )
    assert answer.status_code == 201
    assert answer.headers["Content-Type"] == "application/json"
    remote = answer.json()
    assert re.fullmatch(rf"{REMOTES}[0-9a-f-]{{36}}/", remote["pulp_href"])
    assert remote["prn"] == (
        f"prn:hugging_face.huggingfaceremote:{remote['pulp_href'].split('/')[-2]}"
    )
    assert TIME.fullmatch(remote["pulp_created"])
    assert remote["pulp_last_updated"] == remote["pulp_created"]
    shown = {key: remote[key] for key in ("name", "url", "policy", "hf_token")}
    assert shown == {
        "name": "hf-remote",
        "url": "https://huggingface.co",
        "policy": "on_demand",
        "hf_token": None,
    }
    assert remote["hf_hub_url"] == "https://huggingface.co"
    assert remote["tls_validation"] is True
    assert remote["pulp_labels"] == {}
    assert remote["headers"] is None
    assert not {"client_key", "password", "username", "proxy_username"} & set(remote)
    assert server.get(remote["pulp_href"]).json() == remote


def test_the_tutorial_creates_a_distribution(server: PulpServer) -> None:
    href = server.remote()["pulp_href"]
    answer = server.call(
        "POST", DISTRIBUTIONS, {"name": "hf-cache", "base_path": "huggingface", "remote": href}
    )
    assert answer.status_code == 202
    distribution = answer.json()
    task = server.get(distribution.pop("task")).json()
    assert distribution["base_url"] == f"{server.host}/pulp/content/huggingface/"
    assert distribution["remote"] == href
    assert distribution["hidden"] is False
    assert distribution["access"] == "caller"
    assert distribution["content_guard_prn"] is None
    assert distribution["no_content_change_since"] is None
    assert server.get(distribution["pulp_href"]).json() == distribution
    assert task["state"] == "completed"
    assert task["created_resources"] == [distribution["pulp_href"]]
    assert task["created_resource_prns"] == [distribution["prn"]]
    assert task["result"] == distribution
    assert task["error"] is None
    assert TIME.fullmatch(task["finished_at"])


def test_everything_works_below_a_base_url(tmp_path: Path) -> None:
    with pulp_server(tmp_path, "/user/al%20ice/") as server:
        href = server.remote()["pulp_href"]
        assert href.startswith("/pulp/api/v3/")
        one = server.distribution(remote=f"/user/al%20ice{href}")
        assert one["remote"] == href
        assert one["base_url"] == f"{server.host}/pulp/content/hf/"
        assert server.get(one["pulp_href"]).status_code == 200
        assert server.get(one["task"]).status_code == 200
        server.distribution(name="e", base_path="e")
        page = server.get(f"{DISTRIBUTIONS}?limit=1").json()
        assert page["next"] == f"{server.host}{DISTRIBUTIONS}?limit=1&offset=1"
        content = server.get(f"{API}status/").json()["content_settings"]
        assert content["content_path_prefix"] == "/user/al%20ice/pulp/content/"


@pytest.mark.parametrize("form", ["href", "prefixed", "url", "prn"])
def test_a_remote_is_named_in_every_form(server: PulpServer, form: str) -> None:
    remote = server.remote()
    reference = {
        "href": remote["pulp_href"],
        "prefixed": "/user/alice" + remote["pulp_href"],
        "url": "https://hub.example/user/alice" + remote["pulp_href"],
        "prn": remote["prn"],
    }[form]
    assert server.distribution(remote=reference)["remote"] == remote["pulp_href"]


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("somewhere", "Invalid hyperlink - No URL match."),
        (f"{TASKS}{uuid.UUID(int=1)}/", "Invalid hyperlink - No URL match."),
        (f"{REMOTES}{uuid.UUID(int=1)}/", "Invalid hyperlink - Object does not exist."),
        (5, "Not a valid string."),
    ],
)
def test_a_reference_to_no_remote_is_refused(
    server: PulpServer, reference: object, message: str
) -> None:
    body = {"name": "d", "base_path": "hf", "remote": reference}
    answer = server.call("POST", DISTRIBUTIONS, body)
    assert (answer.status_code, answer.json()) == (400, {"remote": [message]})


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_an_update_answers_the_resource(server: PulpServer, method: str) -> None:
    remote = server.remote()
    changes = {"name": "other", "url": "https://mirror.example/hub", "max_retries": 5}
    answer = server.call(method, remote["pulp_href"], changes)
    assert answer.status_code == 200
    assert answer.json()["pulp_last_updated"] > remote["pulp_last_updated"]
    expected = remote | changes | {"pulp_last_updated": answer.json()["pulp_last_updated"]}
    assert answer.json() == expected
    assert server.get(remote["pulp_href"]).json() == expected


def test_a_patch_changes_the_given_fields_only(server: PulpServer) -> None:
    remote = server.remote(policy="streamed", hf_hub_url="https://h.example", max_retries=3)
    after = server.call("PATCH", remote["pulp_href"], {"max_retries": None}).json()
    assert (after["policy"], after["hf_hub_url"]) == ("streamed", "https://h.example")
    assert after["max_retries"] is None


def test_a_put_resets_what_has_a_default_and_keeps_the_rest(server: PulpServer) -> None:
    remote = server.remote(
        policy="streamed",
        hf_hub_url="https://h.example",
        max_retries=3,
        tls_validation=False,
        hf_token=TOKEN,
    )
    body = {"name": "r", "url": "https://huggingface.co"}
    after = server.call("PUT", remote["pulp_href"], body).json()
    assert (after["policy"], after["hf_hub_url"]) == ("on_demand", "https://huggingface.co")
    assert (after["max_retries"], after["tls_validation"]) == (3, False)
    assert after["hf_token"] == MASK
    one = server.distribution(hidden=True, access="shared")
    after = server.call("PUT", one["pulp_href"], {"name": "d", "base_path": "hf"}).json()
    assert (after["hidden"], after["access"]) == (False, "shared")


def test_a_put_needs_the_required_fields(server: PulpServer) -> None:
    remote = server.remote()
    answer = server.call("PUT", remote["pulp_href"], {"policy": "streamed"})
    required = ["This field is required."]
    assert (answer.status_code, answer.json()) == (400, {"name": required, "url": required})


def test_a_delete_answers_a_task_and_takes_effect(server: PulpServer) -> None:
    remote = server.remote()
    one = server.distribution(remote=remote["pulp_href"])
    answer = server.call("DELETE", remote["pulp_href"])
    assert answer.status_code == 202
    assert list(answer.json()) == ["task"]
    assert server.get(answer.json()["task"]).json()["state"] == "completed"
    assert server.get(remote["pulp_href"]).status_code == 404
    assert server.get(one["pulp_href"]).json()["remote"] is None
    assert server.call("DELETE", one["pulp_href"]).status_code == 202
    assert server.get(one["pulp_href"]).status_code == 404
    assert server.call("DELETE", one["pulp_href"]).status_code == 404


def test_no_secret_is_in_any_answer_or_file(server: PulpServer) -> None:
    remote = server.remote(**SECRETS)
    one = server.distribution(remote=remote["pulp_href"])
    seen = [json.dumps(remote), json.dumps(one)]
    for path in (remote["pulp_href"], REMOTES, DISTRIBUTIONS, TASKS, one["task"]):
        seen.append(server.get(path).text)
    for method in ("PATCH", "PUT"):
        body = {"name": "r", "url": "https://huggingface.co", **SECRETS}
        seen.append(server.call(method, remote["pulp_href"], body).text)
    bad = {**SECRETS, "policy": "no", "max_retries": "no", "url": f"https://user:{TOKEN}@h"}
    seen.append(server.call("PATCH", remote["pulp_href"], bad).text)
    seen.append(server.call("DELETE", remote["pulp_href"]).text)
    server.remote(name="again", **SECRETS)
    files = [path.read_bytes() for path in server.root.rglob("*") if path.is_file()]
    assert any(b"X-Key" in content for content in files)
    for content in [*files, *(text.encode() for text in seen)]:
        assert b"THISISTHE" not in content


def test_secrets_are_masked_and_said_to_be_set(server: PulpServer) -> None:
    remote = server.remote(**SECRETS, name="full")
    assert remote["hf_token"] == MASK
    assert remote["headers"] == [{"X-Key": MASK}]
    names = {"hf_token", "client_key", "proxy_username", "proxy_password", "username", "password"}
    assert {entry["name"] for entry in remote["hidden_fields"]} == names
    assert all(entry["is_set"] is True for entry in remote["hidden_fields"])
    bare = server.remote(name="bare", password="", username=None)
    assert all(entry["is_set"] is False for entry in bare["hidden_fields"])


def test_an_answer_can_be_edited_and_sent_back(server: PulpServer) -> None:
    remote = server.remote(**SECRETS)
    remote["policy"] = "streamed"
    answer = server.call("PUT", remote["pulp_href"], remote)
    assert answer.status_code == 200, answer.text
    (kept,) = server.store.remotes()
    assert (kept.policy, kept.hf_token) == ("streamed", TOKEN)
    assert kept.headers == SECRETS["headers"]
    assert kept.password == SECRETS["password"]
    one = {**server.distribution(), "hidden": True}
    del one["task"]
    answer = server.call("PUT", one["pulp_href"], one)
    assert (answer.status_code, answer.json()["hidden"]) == (200, True)


@pytest.mark.parametrize("nothing", [None, ""])
def test_a_token_is_rotated_and_cleared(server: PulpServer, nothing: str | None) -> None:
    href = server.remote(hf_token=TOKEN)["pulp_href"]
    server.call("PATCH", href, {"hf_token": "hf_next\n"})
    assert [one.hf_token for one in server.store.remotes()] == ["hf_next"]
    answer = server.call("PATCH", href, {"hf_token": nothing}).json()
    assert answer["hf_token"] is None
    assert {"name": "hf_token", "is_set": False} in answer["hidden_fields"]
    assert server.store.remotes()[0].hf_token is None


def test_a_mask_that_hides_nothing_is_refused(server: PulpServer) -> None:
    body = {"name": "r", "url": "https://huggingface.co"}
    answer = server.call("POST", REMOTES, {**body, "hf_token": MASK})
    assert (answer.status_code, list(answer.json())) == (400, ["hf_token"])
    answer = server.call("POST", REMOTES, {**body, "headers": [{"X-Key": MASK}]})
    assert (answer.status_code, list(answer.json())) == (400, ["headers"])


@pytest.mark.parametrize(("kind", "status"), [("remote", 201), ("distribution", 200)])
def test_labels_are_set_and_unset(server: PulpServer, kind: str, status: int) -> None:
    href = getattr(server, kind)(pulp_labels={"a": "1"})["pulp_href"]
    answer = server.call("POST", f"{href}set_label/", {"key": "team", "value": "x"})
    assert (answer.status_code, answer.json()) == (status, {"key": "team", "value": "x"})
    server.call("POST", f"{href}set_label/", {"key": "b", "value": None})
    assert server.get(href).json()["pulp_labels"] == {"a": "1", "team": "x", "b": None}
    answer = server.call("POST", f"{href}unset_label/", {"key": "team"})
    assert (answer.status_code, answer.json()) == (status, {"key": "team", "value": "x"})
    answer = server.call("POST", f"{href}unset_label/", {"key": "team"})
    assert answer.status_code == 400
    assert answer.json() == {"key": ["Label 'team' is not set on the object."]}
    answer = server.call("POST", f"{href}set_label/", {"key": "a/b", "value": "(x)"})
    assert (answer.status_code, set(answer.json())) == (400, {"key", "value"})
    assert server.get(href).json()["pulp_labels"] == {"a": "1", "b": None}


def test_lists_across_types_show_the_same(server: PulpServer) -> None:
    server.distribution(remote=server.remote()["pulp_href"])
    for kind in ("remotes", "distributions"):
        whole = server.get(f"{API}{kind}/").json()
        assert whole == server.get(f"{API}{kind}/hugging_face/hugging-face/").json()
        assert whole["count"] == 1
        assert server.call("POST", f"{API}{kind}/", {}).status_code == 405


def test_tasks_are_listed_and_can_be_forgotten(server: PulpServer) -> None:
    first, second = server.distribution(), server.distribution(name="e", base_path="e")
    tasks = server.get(TASKS).json()
    assert [task["pulp_href"] for task in tasks["results"]] == [second["task"], first["task"]]
    for query, count in (
        ("state=completed", 2),
        ("state__in=running,waiting", 0),
        (f"created_resources={first['pulp_href']}", 1),
        ("name__contains=distribution.create", 2),
        ("started_at__gte=2000-01-01T00:00:00.000000%2B0000", 2),
        ("finished_at__lte=2000-01-01T00:00:00Z", 0),
        ("logging_cid=x", 0),
        ("reserved_resources__in=a,b", 0),
    ):
        assert server.get(f"{TASKS}?{query}").json()["count"] == count, query
    assert server.call("PATCH", first["task"], {"state": "canceled"}).status_code == 409
    assert server.call("PATCH", first["task"], {"state": "x"}).status_code == 400
    gone = server.call("DELETE", first["task"])
    assert (gone.status_code, gone.content) == (204, b"")
    assert server.get(first["task"]).status_code == 404
    assert server.call("DELETE", first["task"]).status_code == 404


def test_a_task_outlives_the_server(tmp_path: Path) -> None:
    with pulp_server(tmp_path) as server:
        href = server.distribution()["task"]
    with pulp_server(tmp_path) as server:
        assert server.get(href).json()["state"] == "completed"


def test_the_status_is_open_to_all(server: PulpServer) -> None:
    answer = server.get(f"{API}status/", auth=None)
    assert answer.status_code == 200
    status = answer.json()
    versions = {entry["component"]: entry["version"] for entry in status["versions"]}
    assert set(versions) == {"core", "hugging_face"}
    assert tuple(map(int, versions["core"].split("."))) >= (3, 49, 0)
    assert status["database_connection"] == {"connected": True}
    assert status["storage"]["total"] >= status["storage"]["used"]
    assert status["content_settings"] == {
        "content_origin": server.host,
        "content_path_prefix": "/pulp/content/",
    }
    assert status["domain_enabled"] is False


def test_a_cache_that_is_not_open_still_has_a_status(tmp_path: Path) -> None:
    with pulp_server(tmp_path, is_open=False) as server:
        status = server.get(f"{API}status/", auth=None).json()
        assert status["database_connection"] == {"connected": False}
        assert status["storage"] is None
        assert server.get(REMOTES).status_code == 503


@pytest.mark.parametrize("kind", ["repositories", "publications"])
def test_what_is_not_offered_is_an_empty_list(server: PulpServer, kind: str) -> None:
    empty = {"count": 0, "next": None, "previous": None, "results": []}
    for path in (f"{API}{kind}/", f"{API}{kind}/hugging_face/hugging-face/"):
        assert server.get(path).json() == empty
        answer = server.call("POST", path, {"name": "x"})
        assert answer.status_code == 501
        assert list(answer.json()) == ["detail"]
    item = f"{API}{kind}/hugging_face/hugging-face/{uuid.UUID(int=1)}/"
    assert server.get(item).status_code == 404
    assert server.call("POST", f"{item}modify/", {}).status_code == 501


def test_a_form_creates_what_json_creates(server: PulpServer) -> None:
    form = {
        "name": "r",
        "url": "https://huggingface.co",
        "tls_validation": "false",
        "max_retries": "5",
        "total_timeout": "",
        "pulp_labels": '{"a": "b"}',
    }
    answer = server.call("POST", REMOTES, data=form)
    assert answer.status_code == 201, answer.text
    remote = answer.json()
    assert (remote["tls_validation"], remote["max_retries"]) == (False, 5)
    assert (remote["total_timeout"], remote["pulp_labels"]) == (None, {"a": "b"})
    files = {name: (None, value) for name, value in form.items()}
    answer = server.call("PATCH", remote["pulp_href"], files=files)
    assert answer.status_code == 200, answer.text


def test_addresses_without_the_last_slash_work(server: PulpServer) -> None:
    href = server.remote()["pulp_href"]
    for path in (REMOTES, href, f"{API}status/", TASKS):
        assert server.get(path.rstrip("/")).status_code == 200


def test_head_answers_as_get_without_a_body(server: PulpServer) -> None:
    href = server.remote()["pulp_href"]
    for path in (REMOTES, href, f"{API}status/", TASKS, f"{API}repositories/"):
        answer = server.call("HEAD", path)
        assert (answer.status_code, answer.content) == (200, b"")


def test_a_read_shows_the_wanted_keys(server: PulpServer) -> None:
    href = server.remote()["pulp_href"]
    assert list(server.get(f"{href}?fields=name&fields=url").json()) == ["name", "url"]
    assert list(server.get(f"{href}?fields=name,url").json()) == ["name", "url"]
    assert "url" not in server.get(f"{href}?exclude_fields=url").json()
