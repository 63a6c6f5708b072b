"""`jupyter hf-cache`: the cache from a terminal.

Responsible for: parsing the command line, asking before something is deleted, exit codes (0 done,
1 failed, 2 wrong usage) and errors in one line with the next step.
Not responsible for: the words (`summary`) or the stand-alone server behind `serve` (`standalone`).

argparse rather than traitlets: `--help` answers at once, and no commands but `serve` and `key` need
a server dependency.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from .discovery import CacheClientError
from .environment import ENDPOINT, OWN_UPSTREAM, OWN_URL, RUNTIME_FILE, inherited_upstream
from .kernel_switch import is_cache_endpoint, redacted, variables

if TYPE_CHECKING:
    from .client import CacheClient

OK, FAILED, USAGE = 0, 1, 2
_MOST_DAYS = 36500

Command = Callable[[argparse.Namespace], "int | None"]
TYPES = ("models", "datasets", "spaces")


class UsageProblem(Exception):
    """The command line makes no sense; the text says why."""


class Failed(Exception):
    """The command could not do what it was asked; the text says why."""


class Parser(argparse.ArgumentParser):
    """A parser whose complaints do not repeat a token that was typed as an argument."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end with exit code 2."""
        super().error(re.sub(r"\bhf_\w+", "hf_…", message))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the console script `jupyter-hf-cache`.

    Args:
        argv: the arguments without the program's name; None for those of the process.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] == "serve":
        # Its options are the server's own, configuration included, so they are not parsed here.
        from .standalone import main as serve

        return int(serve(words[1:]) or OK)
    parser = build_parser()
    options, others = parser.parse_known_args(words)
    if others and not getattr(options, "takes_server_options", False):
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    if "run" not in options:
        parser.print_help()
        return USAGE
    options.server_options = others
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    command: Command = options.run
    try:
        return command(options) or OK
    except UsageProblem as error:
        _complain(str(error))
        return USAGE
    except Failed as error:
        _complain(str(error))
        return FAILED
    except CacheClientError as error:
        _complain(error.text)
        if options.verbose:
            for reason in getattr(error, "reasons", ()):
                _say(f"  {reason}")
            traceback.print_exc()
        return FAILED
    except KeyboardInterrupt:
        _complain("Interrupted.")
        return FAILED
    except BrokenPipeError:
        # The reader (`| head`) has gone; pointing stdout elsewhere spares a second error at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; also what the documentation is checked against."""
    common = Parser(add_help=False)
    common.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        default=argparse.SUPPRESS,
        help="say more about what failed",
    )
    parser = Parser(
        prog="jupyter hf-cache",
        description="A Hugging Face cache for every notebook of your Jupyter server.",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong usage.",
        parents=[common],
    )
    parser.add_argument("--version", action="version", version=f"jupyter-hf-cache {_version()}")
    parser.set_defaults(verbose=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def add(name: str, help: str, **more: Any) -> argparse.ArgumentParser:
        described = more.pop("description", help[0].upper() + help[1:] + ".")
        return commands.add_parser(name, help=help, description=described, parents=[common], **more)

    add("serve", "run the cache without a Jupyter server (see `serve --help`)")
    _add_status(add("status", "show what is kept, what is coming and whether the Hub answers"))
    _add_list(add("ls", "list the cached repos and their revisions"))
    _add_env(
        add(
            "env",
            "print the shell lines that make a terminal or job use the cache",
            epilog='Use it as: eval "$(jupyter hf-cache env)"',
        )
    )
    _add_remove(add("rm", "remove repos from the cache"))
    _add_token(add("token", "set, test or forget the Hugging Face token of a remote"), common)
    _add_key(add("key", "make, list or revoke access keys of a server for others"), common)
    return parser


def _version() -> str:
    try:
        return version("jupyter-hf-cache")
    except PackageNotFoundError:
        return "(not installed)"


def _add_status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    parser.set_defaults(run=_status)


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", nargs="?", default="", help="only repos with this in their name")
    parser.add_argument("--type", choices=TYPES, help="only repos of this type")
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    parser.set_defaults(run=_list)


def _add_env(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--distribution", metavar="NAME", help="another distribution than the default one"
    )
    parser.add_argument(
        "--unset", action="store_true", help="print the lines that take it back; needs no server"
    )
    parser.set_defaults(run=_env)


def _add_remove(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "repos", nargs="+", metavar="REPO", help="owner/name, or datasets/owner/name"
    )
    parser.add_argument("--type", choices=TYPES, help="the type of the repos (default: models)")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be freed")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    parser.set_defaults(run=_remove)


def _add_token(parser: argparse.ArgumentParser, common: Parser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    for name, help, run in (
        ("set", "store a token, asked for or read from standard input", _set_token),
        ("test", "ask the Hub whose token it is", _test_token),
        ("forget", "remove the stored token", _forget_token),
    ):
        action = actions.add_parser(
            name, help=help, description=help[0].upper() + help[1:] + ".", parents=[common]
        )
        action.add_argument(
            "--remote", default="default", metavar="NAME", help="which remote (default: default)"
        )
        action.set_defaults(run=run)


def _add_key(parser: argparse.ArgumentParser, common: Parser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    def add(name: str, help: str, run: Command) -> argparse.ArgumentParser:
        action = actions.add_parser(
            name,
            help=help,
            description=help[0].upper() + help[1:] + ".",
            epilog="Options of `serve` say where its directories are: --HfCache.data_dir=…",
            parents=[common],
        )
        action.set_defaults(run=run, takes_server_options=True)
        return action

    create = add("create", "make a key and print the endpoint that carries it, once", _create_key)
    create.add_argument("name", metavar="NAME", help="for whom or what it is")
    create.add_argument("--expires", type=_days, metavar="DAYS", help="when it ends; else never")
    create.add_argument("--url", type=_url, help="of the server, as clients reach it")
    listing = add("ls", "list the keys and when each was used last", _list_keys)
    listing.add_argument("--json", action="store_true", help="print JSON for programs")
    revoke = add("revoke", "take a key back; it opens nothing from now on", _revoke_key)
    revoke.add_argument("name", metavar="NAME", help="as it was created")


def _days(text: str) -> float:
    days = float(text)
    if not 0 < days <= _MOST_DAYS:
        raise argparse.ArgumentTypeError(f"a number of days up to {_MOST_DAYS}")
    return days


def _url(text: str) -> str:
    if not re.fullmatch(r"https?://[^\s?#]+", text):
        raise argparse.ArgumentTypeError("a URL such as http://cache.example.org:8484/")
    return text


def _connect() -> CacheClient:
    # Imported here: requests costs more than parsing, and --help and --unset do without it.
    from .client import CacheClient

    return CacheClient.find()


def _status(options: argparse.Namespace) -> None:
    from . import summary

    client = _connect()
    status = client.status()
    if options.json:
        facts = asdict(status)
        # It opens the cache: `env` prints it for a shell, a status that gets pasted does not.
        facts.pop("kernel_endpoint")
        _print_json({"url": client.url, **facts})
        return
    print(summary.status_text(status))
    print(summary.panel_text(client.url, status))
    print(f"Files are in {status.cache_dir}")


def _list(options: argparse.Namespace) -> None:
    from . import summary

    repos = list(_connect().all_repos(options.text, options.type))
    if options.json:
        _print_json([_without_files(asdict(repo)) for repo in repos])
    elif repos:
        print(summary.list_text(repos))
    else:
        _say(summary.nothing_found(options.text))


def _without_files(repo: dict[str, Any]) -> dict[str, Any]:
    """A list names how many files there are, never which."""
    repo.pop("file_list")
    return repo


def _env(options: argparse.Namespace) -> None:
    if options.unset:
        _print_unset()
        return
    client = _connect()
    endpoint = client.endpoint(options.distribution)
    if not endpoint:
        raise Failed("The server has no endpoint to give. `jupyter hf-cache status` says why.")
    for name, value in variables(endpoint, os.environ).items():
        print(f"export {name}={shlex.quote(value)}")
    if sys.stdout.isatty():
        _say('# To use it in this shell: eval "$(jupyter hf-cache env)"')
    own = os.environ.get(ENDPOINT, "")
    if own and not is_cache_endpoint(own, os.environ):
        _say(f"# These lines replace your own HF_ENDPOINT ({redacted(own)}).")


def _print_unset() -> None:
    current = os.environ.get(ENDPOINT, "")
    own = inherited_upstream(os.environ)
    if current and not is_cache_endpoint(current, os.environ):
        _say(f"# HF_ENDPOINT ({redacted(current)}) is not the cache's; it stays.")
    elif own:
        print(f"export {ENDPOINT}={shlex.quote(own)}")
    else:
        print(f"unset {ENDPOINT}")
    print(f"unset {OWN_URL} {OWN_UPSTREAM} {RUNTIME_FILE}")
    if sys.stdout.isatty():
        _say('# To use it in this shell: eval "$(jupyter hf-cache env --unset)"')


def _remove(options: argparse.Namespace) -> int:
    from . import summary
    from .client import CacheApiError
    from .presentation import plain

    client = _connect()
    wanted = [_repo_of(word, options.type) for word in options.repos]
    failed = 0
    for type, id in wanted:
        try:
            would = client.delete(type, id, dry_run=True)
            print(f"{plain(id)}: {summary.freed_text(would)}")
            if options.dry_run or not (options.yes or _confirm(f"Remove {id}?")):
                continue
            print(f"{plain(id)}: {summary.freed_text(client.delete(type, id), done=True)}")
        except CacheApiError as error:
            _complain(f"{id}: {error.text}")
            failed += 1
    return FAILED if failed else OK


def _repo_of(word: str, type: str | None) -> tuple[str, str]:
    """Type and id of `owner/name`, `name` or `datasets/owner/name`, which must not deny --type."""
    first, _, rest = word.partition("/")
    if first in TYPES and rest and (type is None or type == first):
        return first, rest
    if first in TYPES and rest.count("/"):
        raise UsageProblem(f"{word} contradicts --type {type}.")
    return type or "models", word


def _confirm(question: str) -> bool:
    if not sys.stdin.isatty():
        raise UsageProblem("Nobody can be asked here: add --yes, or --dry-run to only look.")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _set_token(options: argparse.Namespace) -> None:
    token = _read_token(options.remote)
    _connect().set_token(token, options.remote)
    print(f"The token of {options.remote} is set. To check it: jupyter hf-cache token test")


def _read_token(remote: str) -> str:
    """From the terminal without echo, or the first line of a pipe; never from the arguments."""
    if sys.stdin.isatty():
        from getpass import getpass

        token = getpass(f"Hugging Face token for {remote} (not shown): ")
    else:
        token = sys.stdin.readline()
    token = token.strip()
    if not token:
        raise UsageProblem("No token was given: type it, or pipe it in.")
    if not token.isprintable() or " " in token or not token.isascii():
        raise UsageProblem("That is not a token: it holds blanks or characters no token has.")
    return token


def _test_token(options: argparse.Namespace) -> int:
    from . import summary

    result = _connect().test_token(options.remote)
    print(summary.token_test_text(options.remote, result))
    return OK if result.ok else FAILED


def _forget_token(options: argparse.Namespace) -> None:
    _connect().forget_token(options.remote)
    print(f"The token of {options.remote} is forgotten.")


def _create_key(options: argparse.Namespace) -> None:
    keys = _keys()
    with _failing(keys.KeysUnavailable):
        endpoint = keys.create(
            options.name, options.expires, options.url or "", options.server_options
        )
    print(f"export {ENDPOINT}={shlex.quote(endpoint)}")
    _say(f"# The key {options.name} is part of this address, and is not shown again.")
    if not options.url:
        _say("# Elsewhere, write this machine's name for the host; --url does it for you.")


def _list_keys(options: argparse.Namespace) -> None:
    keys = _keys()
    with _failing(keys.KeysUnavailable):
        found = keys.find_all(options.server_options)
    if options.json:
        _print_json(keys.as_json(found))
    elif found:
        print(keys.as_text(found))
    else:
        _say("There are no keys.")


def _revoke_key(options: argparse.Namespace) -> None:
    keys = _keys()
    with _failing(keys.KeysUnavailable):
        found = keys.revoke(options.name, options.server_options)
    if not found:
        raise Failed(f"There is no key named {options.name}. `jupyter hf-cache key ls` lists them.")
    print(f"The key {options.name} is revoked.")


def _keys() -> ModuleType:
    # It needs the server's dependencies, which most commands do without.
    from . import key_commands

    return key_commands


@contextmanager
def _failing(problem: type[Exception]) -> Iterator[None]:
    try:
        yield
    except problem as error:
        raise Failed(str(error)) from None


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _complain(text: str) -> None:
    from .presentation import plain

    _say(f"jupyter hf-cache: {plain(text)}")


if __name__ == "__main__":
    sys.exit(main())
