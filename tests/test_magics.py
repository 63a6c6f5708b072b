"""`%hf_cache` in an IPython shell, against a stub of the cache API."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.error import StdinNotImplementedError, UsageError
from IPython.core.interactiveshell import InteractiveShell
from stub_cache_api import HOSTILE, StubCacheApi, repo
from traitlets.config import Config

from jupyter_hf_cache.kernel_switch import KernelSwitch
from jupyter_hf_cache.magics import HfCacheMagics

VARIABLES = (
    "HF_ENDPOINT",
    "JUPYTER_HF_CACHE_URL",
    "JUPYTER_HF_CACHE_UPSTREAM",
    "JUPYTER_HF_CACHE_FILE",
    "JPY_PARENT_PID",
    "NO_PROXY",
    "no_proxy",
)


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A process that no server has told anything; returns its empty runtime folder."""
    for name in VARIABLES:
        # Set first, so that what a test leaves there is removed again.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("jupyter_hf_cache.magics.PROCESS", KernelSwitch())
    return tmp_path


@pytest.fixture
def shell(alone: Path) -> Iterator[InteractiveShell]:
    made = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
    yield made
    # IPython ends a shell with the process; this one ends with its test.
    atexit.unregister(made.atexit_operations)
    made.atexit_operations()


@pytest.fixture
def stub(alone: Path) -> Iterator[StubCacheApi]:
    with StubCacheApi() as server:
        server.write_runtime_file(alone)
        yield server


@pytest.fixture
def loaded(stub: StubCacheApi, shell: InteractiveShell, capsys: Any) -> InteractiveShell:
    shell.extension_manager.load_extension("jupyter_hf_cache")
    capsys.readouterr()
    return shell


def complete(shell: InteractiveShell, text: str) -> set[str]:
    """What the kernel would offer with the cursor at the end of `text`."""
    with provisionalcompleter():
        return {found.text for found in shell.Completer.completions(text, len(text))}


def run(shell: InteractiveShell, line: str = "") -> Any:
    return shell.run_line_magic("hf_cache", line)


def test_loading_without_a_server_says_so_in_one_line_and_changes_nothing(
    shell: InteractiveShell, capsys: Any
) -> None:
    before = dict(os.environ)
    shell.extension_manager.load_extension("jupyter_hf_cache")
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "No Hugging Face cache server" in said
    assert "Nothing was changed." in said
    assert dict(os.environ) == before
    with pytest.raises(UsageError, match="jupyter hf-cache serve"):
        run(shell)


def test_loading_in_a_plain_kernel_turns_the_cache_on(
    shell: InteractiveShell, stub: StubCacheApi, capsys: Any
) -> None:
    shell.extension_manager.load_extension("jupyter_hf_cache")
    assert capsys.readouterr().out == f"Hugging Face cache at {stub.url}: on\n"
    assert os.environ["HF_ENDPOINT"] == stub.endpoint
    assert "127.0.0.1" in os.environ["NO_PROXY"]


def test_loading_leaves_a_users_own_endpoint(
    shell: InteractiveShell, stub: StubCacheApi, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    shell.extension_manager.load_extension("jupyter_hf_cache")
    assert "own HF_ENDPOINT https://mirror.example" in capsys.readouterr().out
    assert os.environ["HF_ENDPOINT"] == "https://mirror.example"


def test_loading_leaves_a_kernel_alone_when_the_owner_switched_the_cache_off(
    shell: InteractiveShell, stub: StubCacheApi, capsys: Any
) -> None:
    stub.inject = {"on": False, "reason": "Switched off."}
    shell.extension_manager.load_extension("jupyter_hf_cache")
    assert "off (%hf_cache use turns it on)" in capsys.readouterr().out
    assert "HF_ENDPOINT" not in os.environ


def test_loading_uses_a_server_that_starts_no_kernels(
    shell: InteractiveShell, stub: StubCacheApi
) -> None:
    stub.inject = {"on": False, "reason": None}
    shell.extension_manager.load_extension("jupyter_hf_cache")
    assert os.environ["HF_ENDPOINT"] == stub.endpoint


def test_loading_imports_neither_requests_nor_widgets(stub: StubCacheApi) -> None:
    code = """
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
before = set(sys.modules)
shell.extension_manager.load_extension("jupyter_hf_cache")
print("\\n".join(sorted(set(sys.modules) - before)))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    new = set(ran.stdout.split())
    assert "jupyter_hf_cache.magics" in new
    assert f"{stub.url}:" in ran.stdout
    heavy = {"requests", "urllib3", "ipywidgets", "tornado", "jupyter_server", "huggingface_hub"}
    assert not new & heavy
    assert len([name for name in new if "." not in name]) < 60


def test_the_status_is_plain_and_rich(loaded: InteractiveShell) -> None:
    view = run(loaded)
    assert repr(view).splitlines() == [
        "128 GB in 41 repos · 2 running (1.6 of 2.5 GB, 38 MB/s) · "
        "today 96 % from cache, 61 GB and 1,204 calls saved",
        "this kernel: on",
    ]
    assert 'title="128,000,000,000 bytes"' in view._repr_html_()


def test_the_list(loaded: InteractiveShell, stub: StubCacheApi) -> None:
    stub.repos.append(repo(HOSTILE))
    view = run(loaded, "ls")
    assert "google-bert/bert-base-uncased" in repr(view)
    assert HOSTILE not in view._repr_html_()
    assert "&lt;img" in view._repr_html_()


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("ls squad", "repos?limit=100&offset=0&q=squad"),
        ("ls --type datasets", "repos?limit=100&offset=0&type=datasets"),
        ("ls --type=models bert", "repos?limit=100&offset=0&q=bert&type=models"),
        ("ls 'a b'", "repos?limit=100&offset=0&q=a+b"),
    ],
)
def test_the_list_is_narrowed(
    loaded: InteractiveShell, stub: StubCacheApi, line: str, asked: str
) -> None:
    run(loaded, line)
    assert stub.calls("GET")[-1] == asked


def test_an_empty_list_has_a_next_step(loaded: InteractiveShell, stub: StubCacheApi) -> None:
    assert "No cached repo matches 'nothing'" in repr(run(loaded, "ls nothing"))
    stub.repos.clear()
    assert "from_pretrained" in repr(run(loaded, "ls"))


def test_a_long_list_says_how_many_are_left(loaded: InteractiveShell, stub: StubCacheApi) -> None:
    stub.repos = [repo(f"o/{i}") for i in range(130)]
    assert "and 30 more" in repr(run(loaded, "ls"))


def test_a_token_is_asked_for_and_never_shown(
    loaded: InteractiveShell, stub: StubCacheApi, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("getpass.getpass", lambda prompt: " hf_good ")
    run(loaded, "token set")
    assert stub.tokens == {"default": "hf_good"}
    run(loaded, "token test")
    run(loaded, "token")
    run(loaded, "token forget")
    assert stub.tokens == {"default": ""}
    said = "".join(capsys.readouterr())
    assert "works: alice · read" in said
    assert "default: a token is set" in said
    assert "hf_good" not in said


def test_no_token_is_no_change(
    loaded: InteractiveShell, stub: StubCacheApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("getpass.getpass", lambda prompt: "")
    with pytest.raises(UsageError, match="nothing was changed"):
        run(loaded, "token set")
    assert stub.calls("PUT") == []


def test_where_nobody_can_be_asked_the_terminal_is_named(
    loaded: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(prompt: str) -> str:
        raise StdinNotImplementedError("no input here")

    monkeypatch.setattr("getpass.getpass", refuse)
    with pytest.raises(UsageError, match="jupyter hf-cache token set"):
        run(loaded, "token set")


@pytest.mark.parametrize("line", ["token set hf_secret", "token hf_secret", "use x hf_secret"])
def test_a_token_in_a_cell_is_refused_and_not_repeated(
    loaded: InteractiveShell, stub: StubCacheApi, line: str
) -> None:
    with pytest.raises(UsageError, match="saved with the notebook") as caught:
        run(loaded, line)
    assert "hf_secret" not in str(caught.value)
    assert stub.calls("PUT") == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("lss", "status, ls, token, use, off"),
        ("status now", "one word too many"),
        ("token drop", "set, test, forget"),
        ("ls --type cars", "models, datasets, spaces"),
        ("ls --type", "models, datasets, spaces"),
        ("ls 'a", "quotation mark"),
        ("token test nobody", "There is no remote nobody."),
        ("use nobody", "no distribution named 'nobody'"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(
    loaded: InteractiveShell, line: str, message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        run(loaded, line)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_use_and_off(loaded: InteractiveShell, stub: StubCacheApi, capsys: Any) -> None:
    run(loaded, "off")
    assert "HF_ENDPOINT" not in os.environ
    run(loaded, "off")
    assert "nothing was changed" in capsys.readouterr().out
    run(loaded, "use")
    assert os.environ["HF_ENDPOINT"] == stub.endpoint
    run(loaded, "use team")
    assert os.environ["HF_ENDPOINT"].endswith("/~c4pability/teams/red")
    run(loaded, "off")
    assert "HF_ENDPOINT" not in os.environ
    assert "c4pability" not in capsys.readouterr().out


def test_a_server_that_stopped_is_said_so(
    shell: InteractiveShell, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with StubCacheApi() as server:
        server.write_runtime_file(alone)
        shell.extension_manager.load_extension("jupyter_hf_cache")
    with pytest.raises(UsageError, match="in reach"):
        run(shell, "status")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%hf_cache ", {"status", "ls", "token", "use", "off"}),
        ("%hf_cache to", {"token"}),
        ("%hf_cache token ", {"set", "test", "forget"}),
        ("%hf_cache ls --type d", {"datasets"}),
        ("%hf_cache ls --t", {"--type"}),
    ],
)
def test_commands_are_completed(loaded: InteractiveShell, text: str, expected: set[str]) -> None:
    assert complete(loaded, text) == expected


def test_other_lines_are_not_completed(loaded: InteractiveShell) -> None:
    assert "token" not in complete(loaded, "print hf_cache to")


def test_the_question_mark_shows_the_manual(loaded: InteractiveShell) -> None:
    manual = loaded.object_inspect("%hf_cache")["docstring"]
    for command in HfCacheMagics(loaded)._commands:
        assert f"%hf_cache {command}" in manual


def test_unloading_takes_magic_and_completion_away(loaded: InteractiveShell) -> None:
    loaded.extension_manager.unload_extension("jupyter_hf_cache")
    assert loaded.find_line_magic("hf_cache") is None
    assert "token" not in complete(loaded, "%hf_cache to")
    loaded.extension_manager.load_extension("jupyter_hf_cache")
    assert loaded.find_line_magic("hf_cache") is not None
