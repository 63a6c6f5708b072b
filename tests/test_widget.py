"""The panel: what it shows, what it asks of the server, and what never enters the widget state."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ipywidgets
import pytest
from stub_cache_api import HOSTILE, TOKEN, StubCacheApi, repo

from jupyter_hf_cache.client import CacheClient
from jupyter_hf_cache.widget import CachePanel, TokenField


@pytest.fixture
def stub() -> Iterator[StubCacheApi]:
    with StubCacheApi() as server:
        yield server


def at_once(work: Callable[[], None]) -> None:
    work()


@pytest.fixture
def panel(stub: StubCacheApi) -> CachePanel:
    return CachePanel(CacheClient(stub.url, TOKEN), start=at_once)


def everything_below(widget: Any) -> Iterator[Any]:
    yield widget
    for child in getattr(widget, "children", ()):
        yield from everything_below(child)


def saved_state(panel: CachePanel) -> str:
    """What a notebook that keeps its widget state has in its file."""
    return json.dumps([w.get_state() for w in everything_below(panel)], default=str)


def shown(panel: CachePanel) -> str:
    return "\n".join(w.value for w in everything_below(panel) if isinstance(w, ipywidgets.HTML))


def press(panel: CachePanel, label: str) -> None:
    (button,) = (
        w
        for w in everything_below(panel)
        if isinstance(w, ipywidgets.Button) and w.description == label
    )
    button.click()


def choose(panel: CachePanel, id: str) -> None:
    (key,) = (key for _, key in panel._list.options if key[1] == id)
    panel._list.value = key


def enter(panel: CachePanel, token: str) -> None:
    """What a front end sends when a text field is left."""
    panel._token_field._handle_msg(
        {"content": {"data": {"method": "update", "state": {"value": token}}}, "buffers": []}
    )


def press_enter(panel: CachePanel) -> None:
    """What a front end sends for the Enter key in a text field."""
    panel._token_field._handle_msg(
        {
            "content": {"data": {"method": "custom", "content": {"event": "submit"}}},
            "buffers": [],
        }
    )


def test_the_panel_shows_status_and_repos(panel: CachePanel) -> None:
    assert "128 GB" in panel._head_text.value
    labels = [label for label, _ in panel._list.options]
    assert labels[0].startswith("google-bert/bert-base-uncased · models · 440 MB")
    assert labels[1].endswith("· gated")


def test_nothing_is_chosen_before_somebody_chooses(panel: CachePanel, stub: StubCacheApi) -> None:
    assert panel._list.value is None
    assert not [path for path in stub.calls("GET") if path.startswith("repos/")]
    assert panel._delete.disabled


def test_the_text_form(panel: CachePanel, stub: StubCacheApi) -> None:
    expected = (
        f"Hugging Face cache at {stub.url.rstrip('/')} — 128 GB in 41 repos (300 GB budget), "
        "2 downloads running, Hub reachable"
    )
    assert repr(panel) == expected
    bundle = panel._repr_mimebundle_()
    assert bundle["text/plain"] == expected
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == panel.model_id


def test_the_text_form_waits_for_the_first_status(stub: StubCacheApi) -> None:
    waiting: list[Callable[[], None]] = []
    panel = CachePanel(CacheClient(stub.url, TOKEN), start=waiting.append)
    assert "looking for the server" in repr(panel)
    status = waiting.pop(1)
    for work in waiting:
        work()
    assert "looking for the server" in repr(panel)
    threading.Thread(target=status).start()
    assert "128 GB" in panel._repr_mimebundle_()["text/plain"]


def test_work_runs_in_a_thread_that_does_not_hold_the_kernel(stub: StubCacheApi) -> None:
    seen = threading.Event()

    class Watching(CacheClient):
        def tokens(self) -> list[Any]:
            assert threading.current_thread() is not threading.main_thread()
            assert threading.current_thread().daemon
            seen.set()
            return []

    CachePanel(Watching(stub.url, TOKEN))
    assert seen.wait(10)


def test_search_asks_the_server(panel: CachePanel, stub: StubCacheApi) -> None:
    panel._query.value = "squad"
    assert [key[1] for _, key in panel._list.options] == ["rajpurkar/squad"]
    panel._type.value = "models"
    assert panel._list.options == ()
    assert "No cached repo matches" in panel._list_note.value
    assert stub.calls("GET")[-1] == "repos?limit=100&offset=0&q=squad&type=models"


def test_a_late_answer_to_an_earlier_search_is_dropped(stub: StubCacheApi) -> None:
    waiting: list[Callable[[], None]] = []
    panel = CachePanel(CacheClient(stub.url, TOKEN), start=waiting.append)
    panel._query.value = "squad"
    panel._query.value = "bert"
    for work in reversed(waiting):
        work()
    assert [key[1] for _, key in panel._list.options] == ["google-bert/bert-base-uncased"]


def test_an_empty_cache_has_a_next_step(stub: StubCacheApi) -> None:
    stub.repos.clear()
    panel = CachePanel(CacheClient(stub.url, TOKEN), start=at_once)
    assert "from_pretrained" in panel._list_note.value


def test_a_long_list_says_what_is_missing(stub: StubCacheApi) -> None:
    stub.repos = [repo(f"o/{i}") for i in range(130)]
    panel = CachePanel(CacheClient(stub.url, TOKEN), start=at_once)
    assert len(panel._list.options) == 100
    assert "30 more" in panel._list_note.value


def test_choosing_a_repo_shows_its_files(panel: CachePanel) -> None:
    choose(panel, "google-bert/bert-base-uncased")
    assert "shared with 2 repos" in panel._detail.value
    assert not panel._delete.disabled


def test_names_with_markup_are_escaped(stub: StubCacheApi) -> None:
    stub.repos = [repo(HOSTILE, revisions=[{"revision": HOSTILE, "commit": HOSTILE}])]
    stub.upstream = {"remote": HOSTILE, "url": HOSTILE, "state": "unreachable", "reason": HOSTILE}
    stub.tokens = {HOSTILE: ""}
    panel = CachePanel(CacheClient(stub.url, TOKEN), start=at_once)
    choose(panel, HOSTILE)
    press(panel, "Delete …")
    press(panel, "Delete")
    stub.fail = (500, {"message": HOSTILE, "advice": HOSTILE})
    panel.refresh()
    press(panel, "Test")
    assert "&lt;img" in shown(panel)
    assert "<img" not in shown(panel)


def test_delete_says_what_it_frees_and_asks_once(panel: CachePanel, stub: StubCacheApi) -> None:
    choose(panel, "rajpurkar/squad")
    press(panel, "Delete …")
    assert "Frees 438 MB (5 files). 2 MB stay" in shown(panel)
    assert stub.calls("DELETE") == ["repos/datasets/rajpurkar/squad?dry_run=1"]
    press(panel, "Delete")
    assert stub.calls("DELETE")[1:] == ["repos/datasets/rajpurkar/squad"]
    assert "Freed 438 MB" in panel._message.value
    assert [key[1] for _, key in panel._list.options] == ["google-bert/bert-base-uncased"]
    assert panel._detail.value == ""
    assert panel._delete.disabled


def test_keep_deletes_nothing(panel: CachePanel, stub: StubCacheApi) -> None:
    choose(panel, "rajpurkar/squad")
    press(panel, "Delete …")
    press(panel, "Keep")
    assert panel._confirm.children == ()
    assert len(stub.repos) == 2


def test_choosing_another_repo_withdraws_the_question(panel: CachePanel) -> None:
    choose(panel, "rajpurkar/squad")
    press(panel, "Delete …")
    choose(panel, "google-bert/bert-base-uncased")
    assert panel._confirm.children == ()


def test_a_token_never_stays_in_the_widget_state(panel: CachePanel, stub: StubCacheApi) -> None:
    secret = "hf_verysecret"
    enter(panel, secret)
    assert panel._token_field.value == ""
    assert secret not in saved_state(panel)
    press(panel, "Set")
    assert stub.tokens == {"default": secret}
    assert secret not in saved_state(panel)
    assert secret not in json.dumps(panel._repr_mimebundle_())
    assert "a token is set" in panel._token_note.value


def test_a_token_is_not_sent_back_to_any_front_end(
    panel: CachePanel, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []
    field = panel._token_field
    monkeypatch.setattr(field.comm, "send", lambda *a, **k: sent.append((a, k)))
    # What Jupyter does with the echo switched on, which is the default of ipywidgets 8.
    monkeypatch.setattr("ipywidgets.widgets.widget.JUPYTER_WIDGETS_ECHO", True)
    enter(panel, "hf_verysecret")
    assert sent
    assert "hf_verysecret" not in repr(sent)
    assert any(k.get("data", {}).get("state", {}).get("value") == "" for _, k in sent)


@pytest.mark.parametrize("key_first", [True, False])
def test_enter_stores_the_token(panel: CachePanel, stub: StubCacheApi, key_first: bool) -> None:
    if key_first:
        press_enter(panel)
    enter(panel, "hf_good")
    if not key_first:
        press_enter(panel)
    assert stub.tokens == {"default": "hf_good"}


def test_enter_in_an_empty_field_does_not_store_a_later_token(
    panel: CachePanel, stub: StubCacheApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    press_enter(panel)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 60)
    enter(panel, "hf_good")
    assert stub.tokens == {"default": ""}
    assert "Press Set" in panel._token_note.value


def test_a_token_is_stored_once(panel: CachePanel, stub: StubCacheApi) -> None:
    enter(panel, "hf_good")
    press(panel, "Set")
    press(panel, "Set")
    assert stub.calls("PUT") == ["tokens/default"]
    assert "Enter a token first." in panel._token_note.value


def test_blanks_are_no_token(panel: CachePanel) -> None:
    enter(panel, "   ")
    assert panel._token_field.value == ""
    assert panel._pending_token == ""


def test_a_token_is_tested_and_forgotten(panel: CachePanel, stub: StubCacheApi) -> None:
    stub.tokens["default"] = "hf_good"
    press(panel, "Test")
    assert panel._token_note.value == "The token of default works: alice · read"
    press(panel, "Forget")
    assert stub.tokens == {"default": ""}
    assert "no token" in panel._token_note.value


def test_a_refused_token_says_why(panel: CachePanel, stub: StubCacheApi) -> None:
    enter(panel, "hf_good")
    stub.fail = (403, {"message": "This cache is read only.", "advice": "Ask its admin."})
    press(panel, "Set")
    assert "This cache is read only. Ask its admin." in panel._token_note.value


def test_each_remote_has_its_own_token(stub: StubCacheApi) -> None:
    stub.tokens = {"default": "", "mirror": ""}
    panel = CachePanel(CacheClient(stub.url, TOKEN), start=at_once)
    panel._remote.value = "mirror"
    enter(panel, "hf_good")
    press(panel, "Set")
    assert stub.tokens == {"default": "", "mirror": "hf_good"}
    assert panel._remote.value == "mirror"


def test_the_token_field_hands_over_what_was_entered() -> None:
    taken: list[str] = []
    field = TokenField(taken.append)
    field.set_state({"value": " hf_a "})
    assert taken == ["hf_a"]
    assert field.get_state()["value"] == ""
    assert field.continuous_update is False


def test_without_a_server_the_panel_says_so_and_finds_one_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("JUPYTER_HF_CACHE_FILE", "JPY_PARENT_PID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    panel = CachePanel(start=at_once)
    assert "No Hugging Face cache server" in panel._head_text.value
    assert "jupyter hf-cache serve" in repr(panel)
    with StubCacheApi() as stub:
        stub.write_runtime_file(tmp_path, pid=os.getpid())
        panel.refresh()
        assert "128 GB" in panel._head_text.value
    panel.refresh()
    assert "jupyter hf-cache serve" in panel._head_text.value
    assert panel._list.options == ()
    with StubCacheApi() as restarted:
        restarted.write_runtime_file(tmp_path, pid=os.getpid())
        panel.refresh()
        assert "128 GB" in panel._head_text.value


def test_every_control_has_a_name_for_screen_readers(panel: CachePanel) -> None:
    kinds = (ipywidgets.Text, ipywidgets.Select, ipywidgets.Dropdown, ipywidgets.Button)
    controls = [w for w in everything_below(panel) if isinstance(w, kinds)]
    assert len(controls) >= 8
    assert all(w.description for w in controls)


def test_the_package_offers_the_panel() -> None:
    import jupyter_hf_cache

    assert jupyter_hf_cache.CachePanel is CachePanel
