"""`CachePanel`: the cache as a panel in a notebook.

Responsible for: browsing cached repos, setting, testing and forgetting a token, and deleting, with
ipywidgets alone, so that it also works where no JupyterLab extension of ours is installed.
Not responsible for: the words (`summary`) or the API (`client`).

Every request runs in a thread of its own, so that a slow server never holds up the kernel. All text
from the server is escaped by `summary` before it becomes HTML.

A token is treated as follows. The field sends it once (on Enter or when it loses the focus), is
emptied while that message is still being handled, and does not echo it to other views; so neither
the widget state nor a notebook saved with it holds a token.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from html import escape
from typing import Any, TypeVar

import ipywidgets as widgets
from traitlets import Unicode

from . import summary
from .api_records import Repo, RepoPage, Status, TokenState
from .client import CacheClient, CacheClientError, ServerNotFound
from .presentation import ago, plain, size

_PAGE = 100
_FIRST_LOOK = 3.0
_ENTER_COUNTS = 2.0
_TYPES = (("all types", ""), ("models", "models"), ("datasets", "datasets"), ("spaces", "spaces"))

_T = TypeVar("_T")
Starter = Callable[[Callable[[], None]], None]


def start_thread(work: Callable[[], None]) -> None:
    """Run `work` in a daemon thread: a request that hangs must not keep the kernel from ending."""
    threading.Thread(target=work, name="hf-cache-panel", daemon=True).start()


class TokenField(widgets.Password):  # type: ignore[misc]
    """A password field that hands its value over once and holds none.

    Args:
        taken: called with each value that was entered, after the field was emptied.
    """

    # ipywidgets echoes what a front end sends to all views of the widget; not so for a token.
    value = Unicode("").tag(sync=True, echo_update=False)

    def __init__(self, taken: Callable[[str], None], **options: Any) -> None:
        super().__init__(continuous_update=False, **options)
        self._taken = taken
        self.observe(self._hand_over, names="value")

    def _hand_over(self, change: dict[str, Any]) -> None:
        entered = change["new"].strip()
        if change["new"]:
            self.value = ""
        if entered:
            self._taken(entered)


class CachePanel(widgets.VBox):  # type: ignore[misc]
    """A panel over the cache: `CachePanel()` as the last line of a cell shows it.

    Args:
        client: the server to show; None finds the running one, and again after it was lost.
        start: runs a piece of work beside the kernel's main thread; for tests.
    """

    def __init__(
        self, client: CacheClient | None = None, *, start: Starter = start_thread, **options: Any
    ) -> None:
        self._given = client
        self._client = client
        self._start = start
        self._text = "Hugging Face cache — looking for the server"
        self._looked = threading.Event()
        self._search_number = 0
        self._filling = False
        self._repos: dict[tuple[str, str], Repo] = {}
        self._pending_token = ""
        self._enter_counts_until = 0.0
        self._build()
        super().__init__([self._head, self._tabs, self._message], **options)
        self.layout.width = "100%"
        self.refresh()

    def __repr__(self) -> str:
        return self._text

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """The view, and one line of text where widgets cannot be rendered.

        The first look at the server is waited for, briefly, so that the text has its numbers.
        """
        self._looked.wait(_FIRST_LOOK)
        bundle: dict[str, Any] = {"text/plain": self._text}
        if self.model_id is not None:
            bundle["application/vnd.jupyter.widget-view+json"] = {
                "version_major": 2,
                "version_minor": 0,
                "model_id": self.model_id,
            }
        return bundle

    def refresh(self) -> None:
        """Look at the server again; returns at once."""
        self._message.value = ""
        self._find_repos()
        self._run(
            lambda client: (client.url, client.status()), self._show_status, done=self._looked.set
        )
        self._run(lambda client: client.tokens(), self._show_tokens)

    def _build(self) -> None:
        self._head_text = widgets.HTML(value="Looking for the cache server …")
        refresh = widgets.Button(description="Refresh", tooltip="Look at the server again")
        refresh.on_click(lambda _: self.refresh())
        self._head = widgets.HBox([self._head_text, refresh])
        self._head.layout.justify_content = "space-between"
        self._tabs = widgets.Tab(
            [self._build_repos(), self._build_tokens()], titles=("Cached", "Token")
        )
        self._message = widgets.HTML()

    def _build_repos(self) -> widgets.VBox:
        self._query = widgets.Text(
            placeholder="part of a name", description="Search", continuous_update=False
        )
        self._type = widgets.Dropdown(options=_TYPES, description="Type")
        for control in (self._query, self._type):
            control.observe(lambda _: self._find_repos(), names="value")
        self._list = widgets.Select(
            options=(), rows=8, description="Repos", layout=widgets.Layout(width="auto")
        )
        self._list.observe(lambda _: self._open_repo(), names="value")
        self._list_note = widgets.HTML()
        self._detail = widgets.HTML()
        self._delete = widgets.Button(
            description="Delete …", tooltip="Say what deleting frees, then ask", disabled=True
        )
        self._delete.on_click(lambda _: self._ask_delete())
        self._confirm = widgets.HBox([])
        detail = widgets.VBox([self._detail, self._delete, self._confirm])
        detail.layout.max_height = "400px"
        detail.layout.overflow = "auto"
        return widgets.VBox(
            [widgets.HBox([self._query, self._type]), self._list, self._list_note, detail]
        )

    def _build_tokens(self) -> widgets.VBox:
        self._remote = widgets.Dropdown(options=("default",), description="Remote")
        self._token_field = TokenField(
            self._keep_token, description="Token", placeholder="hf_… from huggingface.co/settings"
        )
        self._token_field.on_msg(self._on_token_message)
        buttons = []
        for word, tip, act in (
            ("Set", "Store the token in the server, encrypted", self._set_token),
            ("Test", "Ask the Hub whose token is stored", self._test_token),
            ("Forget", "Remove the stored token", self._forget_token),
        ):
            button = widgets.Button(description=word, tooltip=tip)
            button.on_click(lambda _, act=act: act())
            buttons.append(button)
        self._token_note = widgets.HTML()
        return widgets.VBox(
            [self._remote, self._token_field, widgets.HBox(buttons), self._token_note]
        )

    def _run(
        self,
        work: Callable[[CacheClient], _T],
        show: Callable[[_T], None],
        note: widgets.HTML | None = None,
        done: Callable[[], None] = lambda: None,
    ) -> None:
        """Do `work` beside the main thread, then show its result or its error.

        Args:
            note: where an error is shown; None for the line below the panel.
            done: called at the end, whatever happened.
        """

        def job() -> None:
            try:
                result = work(self._connect())
            except ServerNotFound as error:
                self._client = self._given
                self._show_no_server(error)
                if note:
                    note.value = ""
            except CacheClientError as error:
                (note or self._message).value = f"⚠ {escape(error.text)}"
            else:
                show(result)
            finally:
                done()

        self._start(job)

    def _connect(self) -> CacheClient:
        if self._client is None:
            self._client = CacheClient.find()
        return self._client

    def _show_no_server(self, error: ServerNotFound) -> None:
        self._text = plain(f"Hugging Face cache — {error.text}")
        self._head_text.value = f"<b>{escape(error.message)}</b> {escape(error.advice)}"
        self._list.options = ()

    def _show_status(self, found: tuple[str, Status]) -> None:
        url, status = found
        self._text = summary.panel_text(url, status)
        self._head_text.value = summary.status_html(status)

    def _find_repos(self) -> None:
        self._search_number += 1
        number, query, type = self._search_number, self._query.value.strip(), self._type.value

        def show(page: RepoPage) -> None:
            # An earlier search may be answered after a later one.
            if number == self._search_number:
                self._show_repos(page, query)

        self._run(lambda client: client.repos(query, type or None, limit=_PAGE), show)

    def _show_repos(self, page: RepoPage, query: str) -> None:
        chosen = self._list.value
        # ipywidgets chooses the first of new options; nobody asked for that one.
        self._filling = True
        self._repos = {(repo.type, repo.id): repo for repo in page.repos}
        options = [(_label(repo), key) for key, repo in self._repos.items()]
        self._list.options = options
        self._list.value = chosen if chosen in self._repos else None
        self._filling = False
        if chosen not in self._repos:
            self._open_repo()
        rest = page.count - len(page.repos)
        if not page.repos:
            self._list_note.value = escape(summary.nothing_found(query))
        elif rest > 0:
            self._list_note.value = f"{rest:,} more are not shown; search for a part of the name."
        else:
            self._list_note.value = ""

    def _open_repo(self) -> None:
        if self._filling:
            return
        key = self._list.value
        self._confirm.children = ()
        self._delete.disabled = key is None
        if key is None:
            self._detail.value = ""
            return
        self._detail.value = summary.repo_html(self._repos[key])
        self._run(lambda client: client.repo(*key), lambda repo: self._show_repo(key, repo))

    def _show_repo(self, key: tuple[str, str], repo: Repo) -> None:
        if self._list.value == key:
            self._detail.value = summary.repo_html(repo)

    def _ask_delete(self) -> None:
        key = self._list.value
        if key is None:
            return
        self._run(
            lambda client: client.delete(*key, dry_run=True),
            lambda freed: self._show_question(key, summary.freed_text(freed)),
        )

    def _show_question(self, key: tuple[str, str], consequence: str) -> None:
        if self._list.value != key:
            return
        yes = widgets.Button(description="Delete", button_style="danger", tooltip="Delete it now")
        no = widgets.Button(description="Keep", tooltip="Delete nothing")
        yes.on_click(lambda _: self._delete_now(key))
        no.on_click(lambda _: self._close_question())
        question = f"<b>{escape(key[1])}</b>: {escape(consequence)}"
        self._confirm.children = (widgets.HTML(value=question), yes, no)

    def _close_question(self) -> None:
        self._confirm.children = ()

    def _delete_now(self, key: tuple[str, str]) -> None:
        self._close_question()
        self._run(
            lambda client: client.delete(*key),
            lambda freed: self._show_deleted(key, summary.freed_text(freed, done=True)),
        )

    def _show_deleted(self, key: tuple[str, str], consequence: str) -> None:
        self.refresh()
        self._message.value = f"{escape(key[1])}: {escape(consequence)}"

    def _keep_token(self, token: str) -> None:
        """Keep what was entered outside the widget state until Set, Enter or another token."""
        self._pending_token = token
        if time.monotonic() < self._enter_counts_until:
            self._set_token()
        else:
            self._token_note.value = "A token was entered. Press Set to store it."

    def _on_token_message(self, _: Any, content: dict[str, Any], __: Any) -> None:
        """Enter was pressed in the token field.

        The front end says so just before it sends the value, because a browser reports the change
        of a field after the key; with an older front end it is the other way round.
        """
        if content.get("event") != "submit":
            return
        if self._pending_token:
            self._set_token()
        else:
            self._enter_counts_until = time.monotonic() + _ENTER_COUNTS

    def _set_token(self) -> None:
        token, self._pending_token = self._pending_token, ""
        self._enter_counts_until = 0.0
        remote = self._remote.value
        if not token:
            self._token_note.value = "Enter a token first."
            return
        self._token_note.value = "Storing …"

        def stored(_: None) -> None:
            self._run(lambda client: client.tokens(), self._show_tokens)

        self._run(lambda client: client.set_token(token, remote), stored, self._token_note)

    def _test_token(self) -> None:
        remote = self._remote.value
        self._token_note.value = "Asking the Hub …"
        self._run(
            lambda client: client.test_token(remote),
            lambda result: self._note_token(summary.token_test_text(remote, result)),
            self._token_note,
        )

    def _forget_token(self) -> None:
        remote = self._remote.value
        self._pending_token = ""

        def forgotten(_: None) -> None:
            self._run(lambda client: client.tokens(), self._show_tokens)

        self._run(lambda client: client.forget_token(remote), forgotten, self._token_note)

    def _note_token(self, text: str) -> None:
        self._token_note.value = escape(text)

    def _show_tokens(self, tokens: list[TokenState]) -> None:
        chosen = self._remote.value
        names = tuple(token.remote for token in tokens) or ("default",)
        if self._remote.options != names:
            self._remote.options = names
            self._remote.value = chosen if chosen in names else names[0]
        self._note_token(" · ".join(summary.tokens_text(tokens).splitlines()))


def _label(repo: Repo) -> str:
    """One line of the list; the front end shows it as text, not as HTML."""
    marks = "".join(
        f" · {word}" for word, on in (("private", repo.private), ("gated", repo.gated)) if on
    )
    return plain(
        f"{repo.id} · {repo.type} · {size(repo.size_bytes)} · {ago(repo.last_used)}{marks}"
    )
