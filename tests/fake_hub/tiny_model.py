"""A BERT small enough for a test, in the files transformers really loads.

Responsible for: config, tokenizer and weights of a BertModel with random parameters, written
without torch: a safetensors file is a length, a JSON header and the raw tensors.
Not responsible for: making sense of any text.
"""

from __future__ import annotations

import json
import random
import string
import struct
from collections.abc import Iterator
from functools import lru_cache
from math import prod

HIDDEN, LAYERS, HEADS, INTERMEDIATE, POSITIONS, TYPES = 32, 2, 4, 64, 128, 2
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [
    "the",
    "a",
    "hub",
    "cache",
    "model",
    "hello",
    "world",
    "paris",
    "is",
    "capital",
    "of",
    "france",
]
VOCABULARY = [
    *SPECIAL,
    *string.ascii_lowercase[1:],  # "a" is among the words
    *string.digits,
    *".,!?-'",
    *(f"##{letter}" for letter in string.ascii_lowercase + string.digits),
    *WORDS,
]


def config() -> dict[str, object]:
    """config.json."""
    return {
        "architectures": ["BertModel"],
        "attention_probs_dropout_prob": 0.1,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": HIDDEN,
        "initializer_range": 0.02,
        "intermediate_size": INTERMEDIATE,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": POSITIONS,
        "model_type": "bert",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "pad_token_id": 0,
        "torch_dtype": "float32",
        "type_vocab_size": TYPES,
        "vocab_size": len(VOCABULARY),
    }


def tokenizer() -> dict[str, object]:
    """tokenizer.json: WordPiece over the vocabulary."""
    ids = {token: number for number, token in enumerate(VOCABULARY)}
    added = [
        {
            "id": ids[token],
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for token in SPECIAL
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "BertProcessing",
            "sep": ["[SEP]", ids["[SEP]"]],
            "cls": ["[CLS]", ids["[CLS]"]],
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": ids,
        },
    }


def tokenizer_config() -> dict[str, object]:
    """tokenizer_config.json."""
    return {
        "cls_token": "[CLS]",
        "do_lower_case": True,
        "mask_token": "[MASK]",
        "model_max_length": POSITIONS,
        "pad_token": "[PAD]",
        "sep_token": "[SEP]",
        "tokenizer_class": "BertTokenizer",
        "unk_token": "[UNK]",
    }


def _shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every parameter of a BertModel with its pooler."""
    yield "embeddings.word_embeddings.weight", (len(VOCABULARY), HIDDEN)
    yield "embeddings.position_embeddings.weight", (POSITIONS, HIDDEN)
    yield "embeddings.token_type_embeddings.weight", (TYPES, HIDDEN)
    yield from _norm("embeddings.LayerNorm")
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            yield from _linear(f"{at}.attention.self.{part}", HIDDEN, HIDDEN)
        yield from _linear(f"{at}.attention.output.dense", HIDDEN, HIDDEN)
        yield from _norm(f"{at}.attention.output.LayerNorm")
        yield from _linear(f"{at}.intermediate.dense", INTERMEDIATE, HIDDEN)
        yield from _linear(f"{at}.output.dense", HIDDEN, INTERMEDIATE)
        yield from _norm(f"{at}.output.LayerNorm")
    yield from _linear("pooler.dense", HIDDEN, HIDDEN)


def _linear(name: str, rows: int, columns: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (rows, columns)
    yield f"{name}.bias", (rows,)


def _norm(name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (HIDDEN,)
    yield f"{name}.bias", (HIDDEN,)


@lru_cache(maxsize=1)
def safetensors() -> bytes:
    """model.safetensors: float32, the same bytes on every machine."""
    source = random.Random(20260101)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    tensors: list[bytes] = []
    offset = 0
    for name, shape in _shapes():
        values = [round(source.uniform(-0.05, 0.05), 6) for _ in range(prod(shape))]
        if name.endswith("LayerNorm.weight"):
            values = [1.0] * len(values)
        raw = struct.pack(f"<{len(values)}f", *values)
        end = offset + len(raw)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, end]}
        tensors.append(raw)
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(tensors)


def files() -> dict[str, bytes]:
    """All files of the model repo."""
    return {
        "config.json": json.dumps(config(), indent=2).encode(),
        "model.safetensors": safetensors(),
        "special_tokens_map.json": json.dumps(
            {
                "cls_token": "[CLS]",
                "mask_token": "[MASK]",
                "pad_token": "[PAD]",
                "sep_token": "[SEP]",
                "unk_token": "[UNK]",
            }
        ).encode(),
        "tokenizer.json": json.dumps(tokenizer(), indent=1).encode(),
        "tokenizer_config.json": json.dumps(tokenizer_config(), indent=2).encode(),
        "vocab.txt": ("\n".join(VOCABULARY) + "\n").encode(),
    }
