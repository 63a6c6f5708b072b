"""The documentation names everything there is, and nothing that is not."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest
from tornado.web import RequestHandler

from jupyter_hf_cache.cli import build_parser
from jupyter_hf_cache.config import HfCache
from jupyter_hf_cache.magics import HfCacheMagics
from jupyter_hf_cache.standalone import ServeApp
from jupyter_hf_cache.web.pulp_schema import RemoteBody
from jupyter_hf_cache.web.routes import all_handlers

ROOT = Path(__file__).parent.parent
USERS = (ROOT / "docs/users/index.md").read_text(encoding="utf-8")
OPERATORS = (ROOT / "docs/operators/index.md").read_text(encoding="utf-8")
DEVELOPERS = (ROOT / "docs/developers/index.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")

VERBS = ("get", "head", "post", "put", "patch", "delete", "options")
GROUP = re.compile(r"\((?:[^()]|\([^()]*\))*\)")


def section(page: str, title: str) -> str:
    """The text below a heading, up to the next one of the same rank."""
    _, found, rest = page.partition(f"\n## {title}\n")
    assert found, f"no section {title}"
    return rest.split("\n## ")[0]


def template(pattern: str) -> str:
    """A route's pattern as the documentation writes it, with `{}` for what varies."""
    return re.sub(r"\{\}(?:\{\})*", "{}", GROUP.sub("{}", pattern).replace(".*", "{}")).replace(
        "/?", "/"
    )


def verbs(handler: type[RequestHandler]) -> set[str]:
    """The methods a handler answers."""
    unimplemented = RequestHandler._unimplemented_method
    return {verb.upper() for verb in VERBS if getattr(handler, verb) is not unimplemented}


def commands() -> dict[str, argparse.ArgumentParser]:
    """Every command of `jupyter hf-cache`, those below `token` included."""
    found: dict[str, argparse.ArgumentParser] = {}

    def collect(parser: argparse.ArgumentParser, prefix: str) -> None:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, command in action.choices.items():
                    found[f"{prefix}{name}"] = command
                    collect(command, f"{prefix}{name} ")

    collect(build_parser(), "")
    return found


def test_every_option_is_documented_and_every_documented_option_exists() -> None:
    documented = re.findall(r"^\| `(\w+)` \|", section(OPERATORS, "Options"), re.MULTILINE)
    assert sorted(documented) == sorted(HfCache.class_own_traits(config=True))


def test_every_field_of_a_remote_is_documented() -> None:
    table, _, _ = section(OPERATORS, "Fields of a remote").partition("\n### ")
    rows = re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE)
    documented = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(documented) == sorted(RemoteBody.model_fields)


def test_every_route_is_documented_with_its_methods() -> None:
    rows = re.findall(
        r"^\| ([A-Z, ]+) \| `([^`]+)` \|", section(DEVELOPERS, "Routes"), re.MULTILINE
    )
    documented = {
        re.sub(r"\{[^}]*\}", "{}", route): set(re.findall("[A-Z]+", methods))
        for methods, route in rows
    }
    assert documented == {template(pattern): verbs(handler) for pattern, handler in all_handlers()}


@pytest.mark.parametrize("name", [name for name in commands() if name not in ("token", "key")])
def test_every_command_is_documented(name: str) -> None:
    assert f"`jupyter hf-cache {name}" in section(USERS, "In a terminal")


@pytest.mark.parametrize(("name", "command"), commands().items())
def test_every_option_of_a_command_is_documented(
    name: str, command: argparse.ArgumentParser
) -> None:
    options = {
        word
        for action in command._actions
        for word in action.option_strings
        if word.startswith("--") and word != "--help"
    }
    missing = {option for option in options if option not in section(USERS, "In a terminal")}
    assert not missing, f"`jupyter hf-cache {name}` has undocumented options"


def test_every_option_of_the_stand_alone_server_is_documented() -> None:
    text = section(OPERATORS, "A server for a team")
    assert not [name for name in ServeApp.aliases if f"`--{name}`" not in text]


def test_every_command_has_help() -> None:
    assert not [name for name, command in commands().items() if not command.description]


def test_every_magic_command_is_documented() -> None:
    known = HfCacheMagics(None)._commands
    text = section(USERS, "In a cell")
    assert not [name for name in known if f"`%hf_cache {name}" not in text]


def test_quick_start_has_two_shell_lines() -> None:
    quick_start = section(README, "Quick start")
    blocks = re.findall(r"```shell\n(.*?)```", quick_start, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.strip()]
    assert lines == ["bash .ci/lab", "bash .ci/test"]
    assert all((ROOT / line.split()[1]).is_file() for line in lines)


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]:
        links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
        inside = [link for link in links if "://" not in link]
        assert not [link for link in inside if not (page.parent / link).exists()], page
