"""Everything that a Hub refuses, asked for with huggingface_hub; run in a client's environment.

Responsible for: naming the cases, and telling what each raised or returned.
Not responsible for: judging it (`test_errors`).

With TAKE_HTTP_FOR_HTTPS the client treats its endpoint as it treats https://huggingface.co: over
plain http it does not tell a missing repo from any other 401.
"""

import importlib
import itertools
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub as hf
from huggingface_hub.utils import logging

SEGMENT, LARGE = "bert-base-uncased", "org/large"
_places = itertools.count()


def told(call: Callable[[], Any]) -> Any:
    """What a call returned, or what a program can see of what it raised."""
    try:
        return repr(call())[:200]
    except Exception as problem:
        kinds = [kind.__name__ for kind in type(problem).__mro__]
        status = getattr(getattr(problem, "response", None), "status_code", None)
        words = getattr(problem, "server_message", None)
        cause = type(problem.__cause__).__name__
        return [kinds[: kinds.index("Exception")], status, words, cause]


def download(repo: str, file: str = "config.json", **named: Any) -> str:
    """Download as on a machine that has nothing."""
    hf.hf_hub_download(repo, file, cache_dir=f"place-{next(_places)}", **named)
    return "downloaded"


def snapshot(repo: str, **named: Any) -> int:
    folder = hf.snapshot_download(repo, cache_dir=f"place-{next(_places)}", **named)
    return len(list(Path(folder).iterdir()))


def files(token: "str | bool" = False) -> hf.HfFileSystem:
    hf.HfFileSystem.clear_instance_cache()
    return hf.HfFileSystem(token=token, skip_instance_cache=True)


def head(url: str, token: "str | bool" = False) -> Any:
    return hf.get_hf_file_metadata(url, token=token).etag


def rights() -> "dict[str, Callable[[], Any]]":
    """Every kind of read, of repos that refuse, by those whom they refuse."""
    cases: dict[str, Callable[[], Any]] = {}
    for repo in ("org/no", "no-such-model", "org/private", "org/gated", "org/disabled"):
        for token in (False, "hf_bob", "hf_revoked"):
            api, url = hf.HfApi(token=token), hf.hf_hub_url(repo, "config.json")
            reads: dict[str, Callable[[], Any]] = {
                "download": lambda r=repo, t=token: download(r, token=t),
                "snapshot": lambda r=repo, t=token: snapshot(r, token=t),
                "metadata": lambda u=url, t=token: head(u, t),
                "info": lambda a=api, r=repo: a.model_info(r).id,
                "tree": lambda a=api, r=repo: len(list(a.list_repo_tree(r))),
                "auth_check": lambda a=api, r=repo: a.auth_check(r),
                "file_exists": lambda a=api, r=repo: a.file_exists(r, "config.json"),
                "repo_exists": lambda a=api, r=repo: a.repo_exists(r),
                "revision_exists": lambda a=api, r=repo: a.revision_exists(r, "main"),
                "paths": lambda a=api, r=repo: len(a.get_paths_info(r, ["config.json"])),
                "refs": lambda a=api, r=repo: len(a.list_repo_refs(r).branches),
                "commits": lambda a=api, r=repo: len(a.list_repo_commits(r)),
                "discussions": lambda a=api, r=repo: len(list(a.get_repo_discussions(r))),
                "listed": lambda r=repo, t=token: len(files(t).ls(r)),
                "read": lambda r=repo, t=token: len(files(t).cat(f"{r}/config.json")),
                "exists": lambda r=repo, t=token: files(t).exists(f"{r}/config.json"),
            }
            cases |= {f"{repo} {token} {name}": call for name, call in reads.items()}
    return cases


def absences() -> "dict[str, Callable[[], Any]]":
    """Revisions and files that are not there."""
    api = hf.HfApi(token=False)
    cases: dict[str, Callable[[], Any]] = {}
    for revision in ("no", "a" * 40, "refs/pr/99"):
        named = {"revision": revision}
        reads: dict[str, Callable[[], Any]] = {
            "download": lambda n=named: download(SEGMENT, **n),
            "snapshot": lambda n=named: snapshot(SEGMENT, **n),
            "info": lambda n=named: api.model_info(SEGMENT, **n).id,
            "tree": lambda n=named: len(list(api.list_repo_tree(SEGMENT, **n))),
            "paths": lambda n=named: len(api.get_paths_info(SEGMENT, ["config.json"], **n)),
            "commits": lambda n=named: len(api.list_repo_commits(SEGMENT, **n)),
            "file_exists": lambda n=named: api.file_exists(SEGMENT, "config.json", **n),
            "revision_exists": lambda r=revision: api.revision_exists(SEGMENT, r),
            "listed": lambda n=named: len(files().ls(LARGE, **n)),
        }
        cases |= {f"revision {revision[:10]} {name}": call for name, call in reads.items()}
    return cases | {
        "file download": lambda: download(SEGMENT, "no.txt"),
        "file below a folder": lambda: download(SEGMENT, "no/no.txt"),
        "file metadata": lambda: head(hf.hf_hub_url(SEGMENT, "no.txt")),
        "file file_exists": lambda: api.file_exists(SEGMENT, "no.txt"),
        "file paths": lambda: api.get_paths_info(SEGMENT, ["no.txt"]),
        "file tree": lambda: len(list(api.list_repo_tree(SEGMENT, "no/folder"))),
        "file info": lambda: files().info(f"{LARGE}/no.txt"),
        "file open": lambda: files().open(f"{LARGE}/no.txt").read(),
        "file found by no pattern": lambda: snapshot(SEGMENT, allow_patterns="no*"),
        "type of another": lambda: download(SEGMENT, repo_type="dataset", token=False),
        "type, signed in": lambda: api.dataset_info(SEGMENT, token="hf_bob"),
    }


def others() -> "dict[str, Callable[[], Any]]":
    """What is asked wrongly, and what is passed on."""
    api, bob, alice = (hf.HfApi(token=token) for token in (False, "hf_bob", "hf_alice"))
    return {
        "bad request": lambda: api.model_info(SEGMENT, expand=["likes", "no"]),
        "bad name": lambda: download("a/b/c"),
        "past the end": lambda: files().open(f"{LARGE}/README.md")._fetch_range(9999, 10009),
        "weights that are none": lambda: api.get_safetensors_metadata(LARGE),
        "nothing local": lambda: download(SEGMENT, local_files_only=True),
        "whoami": lambda: api.whoami(),
        "whoami, revoked": lambda: api.whoami(token="hf_revoked"),
        "whoami, known": lambda: bob.whoami()["name"],
        "create for others": lambda: bob.create_repo("org/new"),
        "create again": lambda: alice.create_repo("org/private"),
        "create as nobody": lambda: api.create_repo("org/new"),
        "upload to others": lambda: bob.upload_file(
            path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=SEGMENT
        ),
        "delete what is not": lambda: alice.delete_repo("org/no-such-repo"),
        "list of nobody": lambda: len(list(api.list_models(author="nobody-at-all"))),
    }


def main() -> None:
    logging.set_verbosity_error()
    if os.environ.get("TAKE_HTTP_FOR_HTTPS"):
        http = importlib.import_module("huggingface_hub.utils._http")
        pattern = http.REPO_API_REGEX.pattern.replace("https://", "https?://")
        http.REPO_API_REGEX = re.compile(pattern, flags=re.VERBOSE)
    cases = {**rights(), **absences(), **others()}
    print("RESULT" + json.dumps({name: told(call) for name, call in cases.items()}))


main()
