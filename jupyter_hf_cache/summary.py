"""What is said about the cache: the same sentences and tables in notebook, panel and terminal.

Responsible for: records of the cache API turned into plain text and HTML. Everything that came from
the server is escaped here: a repo or branch may carry any name.
Not responsible for: how single numbers look (`presentation`) or for fetching them (`client`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from .api_records import Freed, Repo, RepoPage, Revision, Status, TokenState, TokenTest
from .presentation import (
    ago,
    count,
    exact_size,
    plain,
    plural,
    progress,
    short_commit,
    size,
    speed,
    table,
)

NOTHING_CACHED = (
    "Nothing cached yet. Load a model in a notebook, for example "
    'AutoModel.from_pretrained("google-bert/bert-base-uncased"), and it will be listed here.'
)
LIST_HEADER = ("REPO", "TYPE", "REVISION", "COMMIT", "FILES", "SIZE", "LAST USED")
_RIGHT = (4, 5)
FILES_SHOWN = 200


def nothing_found(query: str) -> str:
    """The sentence in place of an empty list."""
    return f"No cached repo matches {query!r}." if query else NOTHING_CACHED


def upstream_text(status: Status) -> str:
    """Whether the Hub and the other remotes can be asked; the reason where they cannot."""
    down = [u for u in status.upstreams if u.state == "unreachable"]
    if down:
        return "; ".join(
            f"{_remote_name(u.remote)} not reachable" + (f" ({u.reason})" if u.reason else "")
            for u in down
        )
    if any(u.state == "reachable" for u in status.upstreams):
        return "Hub reachable"
    if any(u.state == "offline" for u in status.upstreams):
        return "set offline"
    return "Hub not asked yet"


def _remote_name(remote: str) -> str:
    return "Hub" if remote in ("", "default") else f"remote {remote}"


def status_text(status: Status) -> str:
    """One line: what is kept, what is coming, what it was good for today."""
    parts = [f"{size(status.used_bytes)} in {plural(status.repos, 'repo')}"]
    if status.running:
        parts.append(_running_text(status))
    asked = status.hits + status.misses
    if asked:
        parts.append(
            f"today {100 * status.hits // asked} % from cache, "
            f"{size(status.bytes_from_cache)} and {plural(status.calls_saved, 'call')} saved"
        )
    if any(u.state == "unreachable" for u in status.upstreams):
        parts.append(f"{upstream_text(status)}; what is cached keeps working")
    elif any(u.state == "offline" for u in status.upstreams):
        names = sorted(_remote_name(u.remote) for u in status.upstreams if u.state == "offline")
        parts.append(f"{', '.join(names)} set offline")
    return plain(" · ".join([*parts, *status.problems]))


def _running_text(status: Status) -> str:
    text = f"{count(status.running)} running"
    if not status.running_total_bytes:
        return text
    amounts = progress(status.running_done_bytes, status.running_total_bytes)
    return f"{text} ({amounts}, {speed(status.running_speed)})"


def panel_text(url: str, status: Status) -> str:
    """The panel as one line of text, for places that show no widgets."""
    budget = f" ({size(status.limit_bytes)} budget)" if status.limit_bytes else ""
    running = plural(status.running, "download")
    return plain(
        f"Hugging Face cache at {url.rstrip('/')} — {size(status.used_bytes)} in "
        f"{plural(status.repos, 'repo')}{budget}, {running} running, {upstream_text(status)}"
    )


def status_html(status: Status) -> str:
    """The status line with exact numbers behind the rounded ones."""
    budget = f" of {_html_size(status.limit_bytes)}" if status.limit_bytes else " (no limit is set)"
    lines = [
        f"<b>{_html_size(status.used_bytes)}</b>{budget} in {plural(status.repos, 'repo')}, "
        f"{plural(status.files, 'file')}",
        f"{_running_text(status)}" if status.running else "no download running",
    ]
    asked = status.hits + status.misses
    if asked:
        lines.append(
            f"today {100 * status.hits // asked} % from cache, "
            f"{_html_size(status.bytes_from_cache)} and "
            f"{plural(status.calls_saved, 'call')} saved"
        )
    lines.append(escape(upstream_text(status)))
    problems = "".join(f"<div>⚠ {escape(problem)}</div>" for problem in status.problems)
    return f"<div>{' · '.join(lines)}</div>{problems}"


def _html_size(number: int) -> str:
    return f'<span title="{exact_size(number)}">{size(number)}</span>'


def revision_text(revision: Revision) -> str:
    """`main · a265f77`, or the commit alone when no name was asked for."""
    short = short_commit(revision.commit)
    if not revision.revision or revision.revision == revision.commit:
        return short
    return f"{revision.revision} · {short}"


def list_rows(repos: Iterable[Repo]) -> list[tuple[str, ...]]:
    """One row for each cached revision, under LIST_HEADER; a repo without any has one row."""
    rows: list[tuple[str, ...]] = []
    for repo in repos:
        used = ago(repo.last_used)
        for revision in repo.revisions:
            rows.append(
                (
                    repo.id,
                    repo.type,
                    revision.revision or "-",
                    short_commit(revision.commit) or "-",
                    count(revision.files),
                    size(revision.size_bytes),
                    used,
                )
            )
        if not repo.revisions:
            sizes = (count(repo.files), size(repo.size_bytes))
            rows.append((repo.id, repo.type, "-", "-", *sizes, used))
    return rows


def list_text(repos: Iterable[Repo]) -> str:
    """The list as `docker images` would print it."""
    return table(LIST_HEADER, list_rows(repos), right=_RIGHT)


def list_html(page: RepoPage) -> str:
    """The list as a table, with a last line when it is not all."""
    rows = "".join(_html_row(row) for row in list_rows(page.repos))
    rest = page.count - len(page.repos)
    more = f"<p>{plural(rest, 'more repo')} not shown.</p>" if rest > 0 else ""
    return (
        f"<table><thead>{_html_row(LIST_HEADER, 'th')}</thead><tbody>{rows}</tbody></table>{more}"
    )


def _html_row(cells: Sequence[str], tag: str = "td") -> str:
    style = ' style="text-align:left"'
    return "<tr>" + "".join(f"<{tag}{style}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def repo_html(repo: Repo) -> str:
    """One repo with its revisions and files."""
    marks = [word for word, on in (("private", repo.private), ("gated", repo.gated)) if on]
    facts = [repo.type, _html_size(repo.size_bytes), plural(repo.files, "file"), *marks]
    revisions = "".join(
        _html_row(
            (revision_text(r), plural(r.files, "file"), size(r.size_bytes)),
        )
        for r in repo.revisions
    )
    files = "".join(
        f'<tr><td style="text-align:left">{escape(f.path)}</td><td>{_html_size(f.size_bytes)}</td>'
        f"<td>{_shared(f.shared_with)}</td></tr>"
        for f in repo.file_list[:FILES_SHOWN]
    )
    rest = len(repo.file_list) - FILES_SHOWN
    more = f"<p>{plural(rest, 'more file')} not shown.</p>" if rest > 0 else ""
    return (
        f"<b>{escape(repo.id)}</b> · {' · '.join(facts)} · used {escape(ago(repo.last_used))}"
        f"<table>{revisions}</table><table>{files}</table>{more}"
    )


def _shared(number: int) -> str:
    return f"shared with {plural(number, 'repo')}" if number else ""


def freed_text(freed: Freed, *, done: bool = False) -> str:
    """What a deletion frees and what stays."""
    verb = "Freed" if done else "Frees"
    text = f"{verb} {size(freed.freed_bytes)} ({plural(freed.files, 'file')})."
    if freed.kept_shared_bytes:
        stays = "stayed" if done else "stay"
        text += f" {size(freed.kept_shared_bytes)} {stays}: other repos use the same bytes."
    if freed.in_use_bytes:
        text += f" {size(freed.in_use_bytes)} more when those who read them now have ended."
    return text


def tokens_text(tokens: Iterable[TokenState]) -> str:
    """One line for each remote: set or not set."""
    return "\n".join(
        f"{plain(token.remote)}: {'a token is set' if token.set else 'no token'}"
        for token in tokens
    )


def token_test_text(remote: str, result: TokenTest) -> str:
    """Whose token it is, or why it does not work."""
    if not result.ok:
        reason = result.error or "the upstream does not accept it"
        return plain(f"The token of {remote} does not work: {reason}")
    role = f" · {result.role}" if result.role else ""
    return plain(f"The token of {remote} works: {result.name or 'unknown account'}{role}")
