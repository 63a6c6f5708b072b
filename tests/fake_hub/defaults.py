"""The content a default fake Hub starts with.

Responsible for: one repo per case that tests and demos share.

| repo | what it is for |
| --- | --- |
| models/hf-internal-testing/tiny-random-bert | loads in transformers; has a tag, branches, a PR |
| models/bert-base-uncased | an id of one segment |
| models/microsoft/DialoGPT-medium | the tutorial's example |
| models/org/large | LFS files of 3 and 8 MiB, a copy of one under another name |
| models/org/xet | the same bytes and others, stored in Xet |
| models/org/strange-names | file names that need quoting |
| models/org/many-files | 300 small files in 3 folders |
| models/org/new-name | was org/old-name, and OldSingleName |
| models/org/private, org/gated, org/disabled | refusals |
| datasets/org/tables | csv (what its card names), json lines and parquet in folders |
| datasets/org/json-lines, org/parquet | one file each, loadable by format |
| datasets/org/private-data | private |
| spaces/org/page | a static Space with HTML, SVG and a script |

Users: `hf_alice` (may read and write org), `hf_bob` (a stranger), `hf_reader` (reads org/private,
granted org/gated, a read-only token).
Not responsible for: how repos work (`catalogue`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from . import tiny_model
from .content import MIB, BigFile

if TYPE_CHECKING:
    from .app import FakeHub

README = b"---\nlicense: apache-2.0\n---\n# A repo of the fake Hub\n"
STRANGE_NAMES = (
    "a b.txt",
    "hash#tag.txt",
    "what?.txt",
    "100%25.txt",
    "50% off.txt",
    "c++.txt",
    "naïve/日本語.txt",
    "sub/resolve/main/deep.txt",
    "tree/main/x.txt",
    "semi;colon=equals&and.txt",
    "quote'single.txt",
    "[brackets].txt",
    "~tilde~.txt",
    ".hidden/.file",
    "empty.txt",
)


def fill(hub: FakeHub) -> None:
    """Put the default users and repos into a Hub."""
    hub.user("alice", "hf_alice", orgs=["org", "hf-internal-testing"])
    hub.user("bob", "hf_bob")
    private = ["org/private", "org/private-data"]
    hub.user("reader", "hf_reader", reads=private, accepted=["org/gated"], role="read")
    _models(hub)
    _large_models(hub)
    _awkward_models(hub)
    _guarded_models(hub)
    _datasets(hub)
    _spaces(hub)


def _models(hub: FakeHub) -> None:
    tiny = hub.repo("models", "hf-internal-testing/tiny-random-bert")
    tiny.tags = ["transformers", "safetensors", "bert"]
    tiny.commit({"README.md": README}, "initial commit")
    tiny.commit(tiny_model.files(), "Add model")
    tiny.tag("v1.0")
    tiny.commit({"notes.txt": "on a branch\n"}, "Add notes", branch="feature/slash")
    tiny.commit({"notes.txt": "from a pull request\n"}, "Propose notes", branch="refs/pr/1")

    bert = hub.repo("models", "bert-base-uncased")
    bert.tags = ["transformers", "bert", "fill-mask"]
    bert.commit({"README.md": README, **tiny_model.files()}, "Add model")

    dialogue = hub.repo("models", "microsoft/DialoGPT-medium")
    dialogue.tags = ["pytorch", "gpt2", "text-generation", "conversational"]
    dialogue.downloads = 500_000
    config = {
        "architectures": ["GPT2LMHeadModel"],
        "bos_token_id": 50256,
        "eos_token_id": 50256,
        "model_type": "gpt2",
        "n_ctx": 1024,
        "n_embd": 1024,
        "n_head": 16,
        "n_layer": 24,
        "vocab_size": 50257,
    }
    dialogue.commit(
        {
            "README.md": README,
            "config.json": json.dumps(config, indent=2),
            "pytorch_model.bin": BigFile(2 * MIB + 77, seed=3),
        },
        "Add model",
    )


def _large_models(hub: FakeHub) -> None:
    weights, shard = BigFile(8 * MIB + 12345, seed=1), BigFile(3 * MIB, seed=2)
    large = hub.repo("models", "org/large")
    large.commit(
        {"README.md": README, "model.bin": weights, "shard.bin": shard, "copy/model.bin": weights}
    )
    xet = hub.repo("models", "org/xet", xet=True)
    xet.commit(
        {
            "README.md": README,
            "model.safetensors": BigFile(5 * MIB + 1, seed=4),
            "same.bin": weights,
        }
    )


def _awkward_models(hub: FakeHub) -> None:
    strange = hub.repo("models", "org/strange-names")
    strange.commit(
        {name: b"" if name == "empty.txt" else f"I am {name}\n" for name in STRANGE_NAMES}
    )
    many = hub.repo("models", "org/many-files")
    many.commit({f"part-{n % 3}/file-{n:03d}.json": json.dumps({"number": n}) for n in range(300)})
    moved = hub.repo("models", "org/old-name")
    moved.commit({"README.md": README, "config.json": "{}", "model.bin": b"moved weights" * 100})
    hub.catalogue.rename("models", "org/old-name", "org/new-name")
    hub.catalogue.alias("models", "OldSingleName", moved)


def _guarded_models(hub: FakeHub) -> None:
    files = {"README.md": README, "config.json": b'{"model_type": "bert"}'}
    for seed, (id, rules) in enumerate(
        (
            ("org/private", {"private": True}),
            ("org/gated", {"gated": "auto"}),
            ("org/disabled", {"disabled": True}),
        ),
        start=10,
    ):
        repo = hub.repo("models", id, **rules)  # type: ignore[arg-type]
        repo.commit({**files, "model.bin": BigFile(MIB + 1, seed=seed)})


def _datasets(hub: FakeHub) -> None:
    rows = [{"id": n, "text": f"row {n}", "label": n % 2} for n in range(50)]
    csv = "id,text,label\n" + "".join(f"{r['id']},{r['text']},{r['label']}\n" for r in rows)
    json_lines = "".join(json.dumps(row) + "\n" for row in rows)
    parquet = (Path(__file__).parent / "rows.parquet").read_bytes()
    tables = hub.repo("datasets", "org/tables")
    tables.commit(
        {
            "README.md": _CARD,
            "csv/train.csv": csv,
            "jsonl/train.jsonl": json_lines,
            "parquet/train.parquet": parquet,
        }
    )
    tables.point("refs/convert/parquet")
    hub.repo("datasets", "org/json-lines").commit({"train.jsonl": json_lines})
    hub.repo("datasets", "org/parquet").commit({"data/train-00000-of-00001.parquet": parquet})
    private = hub.repo("datasets", "org/private-data", private=True)
    private.commit({"README.md": README, "train.csv": csv})


_CARD = b"""---
license: apache-2.0
configs:
- config_name: csv
  data_files: csv/train.csv
  default: true
---
# Tables
"""


def _spaces(hub: FakeHub) -> None:
    page = hub.repo("spaces", "org/page")
    page.commit(
        {
            "README.md": b"---\nsdk: static\n---\n",
            "index.html": "<!doctype html><script>document.title = 'ran'</script>",
            "image.svg": '<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>',
            "script.js": "document.title = 'ran'\n",
        }
    )
