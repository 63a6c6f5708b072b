"""`%hf_cache`: the cache from a notebook cell.

Responsible for: the line magic, its completion, and what loading the extension does.
Not responsible for: the patches behind `use` and `off` (`kernel_switch`), the words (`summary`).

requests and ipywidgets are imported when a command first needs them, not by `%load_ext`.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

from IPython.core.completer import (
    CompletionContext,
    SimpleCompletion,
    SimpleMatcherResult,
    context_matcher,
)
from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_magic, magics_class

from .discovery import API_PREFIX, CacheClientError, Server, ServerNotFound, ask, find_server
from .environment import ENDPOINT
from .kernel_switch import (
    PROCESS,
    KernelSwitch,
    SwitchReport,
    is_cache_endpoint,
    kernel_state,
    redacted,
)

if TYPE_CHECKING:
    from .client import CacheClient

_TYPES = ("models", "datasets", "spaces")
_TOKEN_WORDS = ("set", "test", "forget")
_LISTED = 100


class View:
    """A result that is a table in a notebook and a line elsewhere."""

    def __init__(self, text: str, html: str) -> None:
        self._text = text
        self._html = html

    def __repr__(self) -> str:
        return self._text

    def _repr_html_(self) -> str:
        return self._html


@magics_class
class HfCacheMagics(Magics):
    """Holds the `%hf_cache` magic of one shell.

    Args:
        shell: the IPython shell.
        connect: gives a client of the running server; for tests.
        switch: the cache of this process; for tests.
    """

    def __init__(
        self,
        shell: Any,
        connect: Callable[[], CacheClient] | None = None,
        switch: KernelSwitch | None = None,
    ) -> None:
        super().__init__(shell)
        self._connect = connect or _find_client
        self._switch = switch or PROCESS
        self._commands: dict[str, Callable[[list[str]], Any]] = {
            "status": self._status,
            "ls": self._list,
            "token": self._token,
            "use": self._use,
            "off": self._off,
        }

    @line_magic
    def hf_cache(self, line: str) -> Any:
        """The Hugging Face cache of your Jupyter server.

        %hf_cache
        %hf_cache status
            What is kept, what is being downloaded, what the cache was good for today, and whether
            this kernel uses it.

        %hf_cache ls [TEXT] [--type models|datasets|spaces]
            The cached repos and their revisions; with TEXT only those whose name contains it.

        %hf_cache token
            Which remotes have a stored token.
        %hf_cache token set [REMOTE]
            Store a Hugging Face token for a remote (`default` when none is named). It is asked for
            and not shown; never type it into a cell, because cells are saved.
        %hf_cache token test [REMOTE]
            Ask the Hub whose token it is.
        %hf_cache token forget [REMOTE]
            Remove the stored token.

        %hf_cache use [DISTRIBUTION]
            Turn the cache on for this kernel and for processes it starts: sets HF_ENDPOINT and,
            where huggingface_hub, datasets or transformers are imported already, changes what they
            read. Says what it could not change.
        %hf_cache off
            Put back what `use` changed. In a kernel that had the cache from its start, this sends
            its downloads straight to the Hub.
        """
        words = _split(line)
        name = words[0] if words else "status"
        command = self._commands.get(name)
        if command is None:
            known = ", ".join(self._commands)
            raise UsageError(f"%hf_cache has no such command; it has {known}. See %hf_cache?")
        try:
            return command(words[1:])
        except CacheClientError as error:
            raise UsageError(error.text) from None

    def greet(self) -> str:
        """What `%load_ext` says, after turning the cache on where nothing speaks against it.

        A kernel whose HF_ENDPOINT the user chose, and a server whose owner switched the cache off
        for new kernels, are left as they are.
        """
        try:
            server = find_server()
        except ServerNotFound as error:
            return f"{error.text} Nothing was changed."
        state = kernel_state(server.url)
        if os.environ.get(ENDPOINT) or state == "on":
            return f"Hugging Face cache at {server.url}: {state}"
        endpoint, wanted = _endpoint_of(server)
        if not endpoint or not wanted:
            return f"Hugging Face cache at {server.url}: {state}"
        report = self._switch.use(endpoint)
        return "\n".join([f"Hugging Face cache at {server.url}: on", *report.left])

    def _status(self, words: list[str]) -> View:
        from . import summary

        _no_more(words)
        client = self._connect()
        status = client.status()
        state = f"this kernel: {kernel_state(client.url)}"
        return View(
            f"{summary.status_text(status)}\n{state}",
            f"{summary.status_html(status)}<div>{escape(state)}</div>",
        )

    def _list(self, words: list[str]) -> View:
        from . import summary

        kind = _take_type(words)
        query = words.pop(0) if words else ""
        _no_more(words)
        page = self._connect().repos(query, kind, limit=_LISTED)
        if not page.repos:
            sentence = summary.nothing_found(query)
            return View(sentence, f"<div>{escape(sentence)}</div>")
        text = summary.list_text(page.repos)
        if page.count > len(page.repos):
            text += (
                f"\n… and {page.count - len(page.repos)} more; name a part of what you look for."
            )
        return View(text, summary.list_html(page))

    def _token(self, words: list[str]) -> Any:
        from . import summary

        action = words.pop(0) if words else ""
        _refuse_token(action, *words)
        if action and action not in _TOKEN_WORDS:
            raise UsageError(f"Say %hf_cache token with one of {', '.join(_TOKEN_WORDS)}.")
        remote = words.pop(0) if action and words else "default"
        _no_more(words)
        client = self._connect()
        if not action:
            print(summary.tokens_text(client.tokens()) or "There is no remote.")
        elif action == "set":
            client.set_token(_ask_for_token(remote), remote)
            print(f"The token of {remote} is set. `%hf_cache token test` asks the Hub about it.")
        elif action == "test":
            print(summary.token_test_text(remote, client.test_token(remote)))
        else:
            client.forget_token(remote)
            print(f"The token of {remote} is forgotten.")

    def _use(self, words: list[str]) -> None:
        distribution = words.pop(0) if words else None
        _no_more(words)
        endpoint = self._connect().endpoint(distribution)
        if not endpoint:
            raise UsageError("The server has no endpoint for kernels. Its log says why.")
        _tell("on", self._switch.use(endpoint))

    def _off(self, words: list[str]) -> None:
        _no_more(words)
        if not self._switch.on and not is_cache_endpoint(os.environ.get(ENDPOINT, ""), os.environ):
            print("This kernel does not use the cache; nothing was changed.")
            return
        _tell("off", self._switch.off())


def _find_client() -> CacheClient:
    from .client import CacheClient

    return CacheClient.find()


def _endpoint_of(server: Server) -> tuple[str | None, bool]:
    """The server's endpoint for kernels and whether its owner wants kernels to use it."""
    try:
        status = ask(server.url, f"{API_PREFIX}status", token=server.token)
    except (OSError, ValueError):
        return None, False
    endpoint = status.get("kernel_endpoint") or status.get("endpoint")
    inject = status.get("inject")
    # Off without a reason is a server that starts no kernels: nobody has decided against it.
    wanted = not isinstance(inject, dict) or bool(inject.get("on")) or not inject.get("reason")
    return (endpoint if isinstance(endpoint, str) else None), wanted


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        raise UsageError("A quotation mark is not closed.") from None


def _no_more(words: list[str]) -> None:
    if words:
        _refuse_token(*words)
        raise UsageError("That is one word too many. See %hf_cache?")


def _take_type(words: list[str]) -> str | None:
    """Remove `--type X` or `--type=X` from the words."""
    for i, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name != "--type":
            continue
        del words[i]
        if not equals:
            value = words.pop(i) if i < len(words) else ""
        if value not in _TYPES:
            raise UsageError(f"--type is one of {', '.join(_TYPES)}.")
        return value
    return None


def _refuse_token(*words: str) -> None:
    if any(word.startswith(("hf_", "api_org_")) for word in words):
        raise UsageError(
            "Do not type a token into a cell: it is saved with the notebook and in the history. "
            "Remove this one, and run %hf_cache token set; it will ask."
        )


def _ask_for_token(remote: str) -> str:
    # Looked up at the call: ipykernel puts its own getpass there, which asks the front end.
    import getpass

    try:
        token = getpass.getpass(f"Hugging Face token for {remote} (not shown): ").strip()
    except (EOFError, NotImplementedError):
        # IPython's StdinNotImplementedError: a front end without input, such as nbconvert.
        raise UsageError(
            "Nobody can be asked here. In a terminal: jupyter hf-cache token set"
        ) from None
    if not token:
        raise UsageError("No token was entered; nothing was changed.")
    return token


def _tell(state: str, report: SwitchReport) -> None:
    print(f"Hugging Face cache for this kernel: {state} ({redacted(report.endpoint)})")
    if report.patched:
        print(f"Already imported and changed: {', '.join(report.patched)}.")
    for sentence in report.left:
        print(sentence)


def _complete(context: CompletionContext) -> SimpleMatcherResult:
    """Sub-commands and their words after `%hf_cache`."""
    before = context.text_until_cursor.lstrip().split(" ")
    words = [word for word in before[:-1] if word]
    choices: tuple[str, ...] = ()
    if words and words[0] in ("%hf_cache", "hf_cache"):
        choices = _choices(words[1:])
    found = [SimpleCompletion(c, type="magic") for c in choices if c.startswith(context.token)]
    return {
        "completions": found,
        "suppress": bool(found),
        "do_not_suppress": set(),
        "matched_fragment": context.token,
        "ordered": True,
    }


complete_hf_cache: Any = context_matcher(identifier="jupyter_hf_cache")(_complete)
"""What IPython asks for completions after `%hf_cache`."""


def _choices(words: list[str]) -> tuple[str, ...]:
    match words:
        case []:
            return ("status", "ls", "token", "use", "off")
        case ["token"]:
            return _TOKEN_WORDS
        case ["ls", *_, "--type"]:
            return _TYPES
        case ["ls", *_] if "--type" not in words:
            return ("--type",)
    return ()


def load_ipython_extension(shell: Any) -> None:
    """Register `%hf_cache` and turn the cache on where nothing speaks against it.

    Says in one line what it found; without a server in reach nothing but the magic is added.
    """
    magics = HfCacheMagics(shell)
    shell.register_magics(magics)
    if complete_hf_cache not in shell.Completer.custom_matchers:
        shell.Completer.custom_matchers.append(complete_hf_cache)
    print(magics.greet())


def unload_ipython_extension(shell: Any) -> None:
    """Take the magic and its completion away; what `use` changed stays until `%hf_cache off`."""
    shell.magics_manager.magics["line"].pop("hf_cache", None)
    if complete_hf_cache in shell.Completer.custom_matchers:
        shell.Completer.custom_matchers.remove(complete_hf_cache)
