"""`jupyter hf-cache` against a stub of the cache API."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stub_cache_api import HOSTILE, TOKEN, StubCacheApi, repo

from jupyter_hf_cache import cli

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
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def stub(alone: Path) -> Iterator[StubCacheApi]:
    with StubCacheApi() as server:
        server.write_runtime_file(alone)
        yield server


class Terminal(io.StringIO):
    """Standard input with a person at it."""

    def isatty(self) -> bool:
        return True


def test_help_lists_every_command_and_the_exit_codes(capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for command in ("serve", "status", "ls", "env", "rm", "token"):
        assert f"\n    {command} " in text
    assert "0 done, 1 failed, 2 wrong usage" in text


@pytest.mark.parametrize("command", ["status", "ls", "env", "rm", "token", "token set"])
def test_every_command_has_help(command: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*command.split(), "--help"])
    assert ended.value.code == 0
    assert "usage: jupyter hf-cache" in capsys.readouterr().out


def test_no_command_is_wrong_usage(capsys: Any) -> None:
    assert cli.main([]) == 2
    assert "commands:" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["lss"], ["ls", "--type", "cars"], ["token"], ["rm"]])
def test_wrong_usage_ends_with_2(words: list[str], capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2


def test_the_version_is_told(capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("jupyter-hf-cache ")


def test_help_imports_neither_requests_nor_a_server() -> None:
    code = """
import sys
from jupyter_hf_cache.cli import main
try:
    main(["ls", "--help"])
except SystemExit:
    print("\\n".join(sys.modules))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    assert "jupyter_hf_cache.cli" in loaded
    assert not loaded & {"requests", "tornado", "jupyter_server", "traitlets", "IPython"}


def test_jupyter_finds_the_command() -> None:
    jupyter = shutil.which("jupyter", path=str(Path(sys.executable).parent))
    command = shutil.which("jupyter-hf-cache", path=str(Path(sys.executable).parent))
    assert jupyter
    assert command
    ran = subprocess.run(
        [jupyter, "hf-cache", "ls", "--help"], capture_output=True, text=True, check=True
    )
    assert "usage: jupyter hf-cache ls" in ran.stdout


def test_serve_hands_its_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    stand_in = type(sys)("jupyter_hf_cache.standalone")
    stand_in.main = lambda argv: seen.append(argv) or 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "jupyter_hf_cache.standalone", stand_in)
    assert cli.main(["serve", "--port", "1", "--help"]) == 3
    assert seen == [["--port", "1", "--help"]]


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("words", ["status", "ls", "env", "rm a --yes", "token test"])
def test_without_a_server_the_next_step_is_told_in_one_line(words: str, capsys: Any) -> None:
    assert cli.main(words.split()) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert "jupyter hf-cache serve" in told.err


def test_details_come_with_v(alone: Path, capsys: Any) -> None:
    (alone / f"hf-cache-{os.getpid()}.json").write_text("{}")
    (alone / f"hf-cache-{os.getpid()}.json").chmod(0o600)
    assert cli.main(["status", "-v"]) == 1
    told = capsys.readouterr().err
    assert "is not a runtime file" in told
    assert "Traceback" in told


def test_status(stub: StubCacheApi, capsys: Any) -> None:
    assert cli.main(["status"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("128 GB in 41 repos · 2 running (1.6 of 2.5 GB, 38 MB/s)")
    assert stub.url.rstrip("/") in lines[1]
    assert lines[2] == "Files are in /cache"


def test_status_for_programs_opens_nothing(stub: StubCacheApi, capsys: Any) -> None:
    assert cli.main(["status", "--json"]) == 0
    told = capsys.readouterr().out
    assert json.loads(told)["used_bytes"] == 128_000_000_000
    assert json.loads(told)["url"] == stub.url
    assert "c4pability" not in told
    assert TOKEN not in told


def test_ls(stub: StubCacheApi, capsys: Any) -> None:
    stub.repos.append(repo("o/\x1b]0;owned\x07"))
    assert cli.main(["ls"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["REPO", "TYPE", "REVISION"]
    assert rows[0].startswith("google-bert/bert-base-uncased  models")
    assert "440 MB" in rows[0]
    assert rows[2].startswith("o/\\x1b]0;owned\\x07")


def test_ls_is_narrowed_by_the_server(stub: StubCacheApi, capsys: Any) -> None:
    assert cli.main(["ls", "squad", "--type", "datasets"]) == 0
    assert stub.calls("GET")[-1] == "repos?limit=100&offset=0&q=squad&type=datasets"
    assert "bert" not in capsys.readouterr().out


def test_ls_for_programs(stub: StubCacheApi, capsys: Any) -> None:
    assert cli.main(["ls", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(r["type"], r["id"]) for r in listed] == [
        ("models", "google-bert/bert-base-uncased"),
        ("datasets", "rajpurkar/squad"),
    ]
    assert listed[0]["revisions"][0]["revision"] == "main"
    assert listed[0]["size_bytes"] == 440_473_133


def test_an_empty_ls_has_a_next_step_on_the_side(stub: StubCacheApi, capsys: Any) -> None:
    stub.repos.clear()
    assert cli.main(["ls"]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "from_pretrained" in told.err
    assert cli.main(["ls", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def exported(shell_lines: str, *names: str, **environ: str) -> list[str]:
    """What a real shell has in these variables after the lines."""
    script = shell_lines + "\n" + "\n".join(f'printf "%s\\n" "${{{name}-unset}}"' for name in names)
    ran = subprocess.run(
        ["sh", "-c", script], env={**environ}, capture_output=True, text=True, check=True
    )
    return ran.stdout.splitlines()


def test_env_prints_lines_for_a_shell(
    stub: StubCacheApi, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "a b.example,it's")
    assert cli.main(["env"]) == 0
    told = capsys.readouterr()
    names = ("HF_ENDPOINT", "JUPYTER_HF_CACHE_URL", "NO_PROXY", "no_proxy")
    no_proxy = "a b.example,it's,127.0.0.1"
    assert exported(told.out, *names) == [stub.endpoint, stub.endpoint, no_proxy, no_proxy]
    assert told.err == ""


def test_env_of_another_distribution(stub: StubCacheApi, capsys: Any) -> None:
    assert cli.main(["env", "--distribution", "team"]) == 0
    told = exported(capsys.readouterr().out, "HF_ENDPOINT")
    assert told == [f"{stub.url}pulp/content/~c4pability/teams/red"]
    assert cli.main(["env", "--distribution", "nobody"]) == 1
    assert "no distribution named 'nobody'" in capsys.readouterr().err


def test_env_says_what_it_replaces_and_notes_it(
    stub: StubCacheApi, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    assert cli.main(["env"]) == 0
    told = capsys.readouterr()
    assert "replace your own HF_ENDPOINT (https://mirror.example)" in told.err
    assert exported(told.out, "JUPYTER_HF_CACHE_UPSTREAM") == ["https://mirror.example"]


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "unset"),
        ({"HF_ENDPOINT": "http://127.0.0.1:1/x", "JUPYTER_HF_CACHE_URL": "http://127.0.0.1:1/x"},
         "unset"),
        (
            {
                "HF_ENDPOINT": "http://127.0.0.1:1/x",
                "JUPYTER_HF_CACHE_URL": "http://127.0.0.1:1/x",
                "JUPYTER_HF_CACHE_UPSTREAM": "https://mirror.example",
            },
            "https://mirror.example",
        ),
        ({"HF_ENDPOINT": "https://mirror.example"}, "https://mirror.example"),
    ],
)  # fmt: skip
def test_unset_needs_no_server_and_brings_the_users_own_back(
    environ: dict[str, str], expected: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["env", "--unset"]) == 0
    lines = capsys.readouterr().out
    names = ("HF_ENDPOINT", "JUPYTER_HF_CACHE_URL", "JUPYTER_HF_CACHE_UPSTREAM")
    assert exported(lines, *names, **environ) == [expected, "unset", "unset"]


def test_rm_says_what_it_frees_and_asks_once(
    stub: StubCacheApi, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("n\ny\n"))
    assert cli.main(["rm", "google-bert/bert-base-uncased", "datasets/rajpurkar/squad"]) == 0
    told = capsys.readouterr()
    assert "Frees 438 MB (5 files). 2 MB stay" in told.out
    assert told.err.count("[y/N]") == 2
    assert [r["id"] for r in stub.repos] == ["google-bert/bert-base-uncased"]


def test_rm_without_a_person_needs_yes(
    stub: StubCacheApi, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert cli.main(["rm", "rajpurkar/squad", "--type", "datasets"]) == 2
    assert "--yes" in capsys.readouterr().err
    assert len(stub.repos) == 2
    assert cli.main(["rm", "rajpurkar/squad", "--type", "datasets", "--yes"]) == 0
    assert "Freed 438 MB" in capsys.readouterr().out
    assert len(stub.repos) == 1


def test_rm_dry_run_only_looks(stub: StubCacheApi, capsys: Any) -> None:
    assert cli.main(["rm", "--dry-run", "google-bert/bert-base-uncased"]) == 0
    assert "Frees 438 MB" in capsys.readouterr().out
    assert len(stub.repos) == 2


def test_rm_goes_on_after_one_that_fails(stub: StubCacheApi, capsys: Any) -> None:
    words = ["rm", "--yes", "nobody/none", "google-bert/bert-base-uncased"]
    assert cli.main(words) == 1
    assert "nobody/none is not cached. See the list." in capsys.readouterr().err
    assert len(stub.repos) == 1


@pytest.mark.parametrize(
    ("word", "type", "expected"),
    [
        ("gpt2", None, ("models", "gpt2")),
        ("o/n", None, ("models", "o/n")),
        ("o/n", "spaces", ("spaces", "o/n")),
        ("datasets/o/n", None, ("datasets", "o/n")),
        ("datasets/squad", None, ("datasets", "squad")),
        ("datasets/o/n", "datasets", ("datasets", "o/n")),
        ("datasets/n", "models", ("models", "datasets/n")),
    ],
)
def test_repo_names(word: str, type: str | None, expected: tuple[str, str]) -> None:
    assert cli._repo_of(word, type) == expected


def test_a_repo_name_that_contradicts_its_type(stub: StubCacheApi, capsys: Any) -> None:
    assert cli.main(["rm", "datasets/o/n", "--type", "models", "--yes"]) == 2
    assert "contradicts" in capsys.readouterr().err


def test_token_from_a_pipe(
    stub: StubCacheApi, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("hf_good\nrest\n"))
    assert cli.main(["token", "set"]) == 0
    assert stub.tokens == {"default": "hf_good"}
    assert cli.main(["token", "test"]) == 0
    assert cli.main(["token", "forget"]) == 0
    assert stub.tokens == {"default": ""}
    assert cli.main(["token", "test"]) == 1
    told = "".join(capsys.readouterr())
    assert "works: alice · read" in told
    assert "does not work: Invalid user token." in told
    assert "hf_good" not in told


def test_token_from_a_person(
    stub: StubCacheApi, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("getpass.getpass", lambda prompt: "hf_good")
    assert cli.main(["token", "set"]) == 0
    assert stub.tokens == {"default": "hf_good"}


@pytest.mark.parametrize("given", ["", "\n", "hf_a b\n", "hf_\x1b[0m\n", "hf_ü\n"])
def test_what_cannot_be_a_token_is_refused(
    stub: StubCacheApi, given: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(given))
    assert cli.main(["token", "set"]) == 2
    assert stub.calls("PUT") == []
    assert "hf_" not in capsys.readouterr().err


def test_a_token_on_the_command_line_is_wrong_usage(stub: StubCacheApi, capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["token", "set", "hf_secret"])
    assert ended.value.code == 2
    assert stub.seen == []
    assert "hf_secret" not in capsys.readouterr().err


def test_the_servers_words_reach_the_terminal_printable(stub: StubCacheApi, capsys: Any) -> None:
    stub.fail = (500, {"message": f"{HOSTILE}\x1b[2J", "advice": "Wait."})
    assert cli.main(["status"]) == 1
    assert "\x1b" not in capsys.readouterr().err


def test_a_reader_that_leaves_early_is_no_traceback(stub: StubCacheApi) -> None:
    stub.repos = [repo(f"o/{i}" * 30) for i in range(5000)]
    code = "import sys; from jupyter_hf_cache.cli import main; sys.exit(main(['ls']))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
