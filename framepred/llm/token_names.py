"""Readable names for a run's ids, as the `tokenizer.json` that Hugging Face's tokenizers read."""

import copy
import functools
import json
from pathlib import Path
from typing import Any

from framepred.errors import FramepredError
from framepred.sequence.vocabulary import Vocabulary

TOKENIZER_JSON = "tokenizer.json"
TEXT_FILES = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "generation_config.json")
"""Files beside a tokenizer.json; none is code."""


def token_names(vocabulary: Vocabulary) -> dict[int, str]:
    """Return the name of every id that is not text: `<|v_0123|>`, `<|k_0123|>`, `<|a_3|>`, `<|no_action|>`."""
    names: dict[int, str] = {}
    for letter, codes in (("v", range(*vocabulary.visual)), ("k", range(*vocabulary.context))):
        digits = max(4, len(str(len(codes) - 1)))
        names |= {id: f"<|{letter}_{code:0{digits}}|>" for code, id in enumerate(codes)}
    action = range(*vocabulary.action)
    names |= {id: f"<|a_{code}|>" for code, id in enumerate(action)}
    return names | {id: f"<|{name}|>" for name, id in vocabulary.to_json()["special"].items()}


def read_text_tokenizer(folder: Path, vocabulary: Vocabulary) -> dict[str, Any] | None:
    """Return the tokenizer.json of a run's text range, the one of its LLM; None where a run knows no text."""
    if not vocabulary.text_size:
        return None
    file = folder / TOKENIZER_JSON
    try:
        text = json.loads(file.read_text(encoding="utf-8"))
        kind = text["model"]["type"]
    except FileNotFoundError:
        raise FramepredError(
            f"{folder} has {vocabulary.text_size} text ids but no {TOKENIZER_JSON}: copy that of its LLM there"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FramepredError(f"{file} cannot be read ({error!r}): copy that of the LLM again") from error
    if kind != "BPE":
        raise FramepredError(f"{file} is a {kind} tokenizer; framepred extends BPE, which Llama models have")
    return text


def read_text_files(folder: Path) -> dict[str, str]:
    """Return the contents of those of a folder's tokenizer files that exist, by file name."""
    try:
        found = [folder / name for name in (TOKENIZER_JSON, *TEXT_FILES) if (folder / name).is_file()]
        return {file.name: file.read_text(encoding="utf-8") for file in found}
    except (OSError, UnicodeDecodeError) as error:
        raise FramepredError(f"{folder}: its text tokenizer cannot be read ({error}): restore it") from error


@functools.lru_cache(maxsize=2)
def text_tokenizer(tokenizer_json: str) -> Any:
    """Return the `tokenizers.Tokenizer` of a tokenizer.json's text."""
    try:
        import tokenizers
    except ImportError as error:
        raise FramepredError(f"text needs tokenizers ({error}): pip install 'framepred[llm]'") from error
    try:
        return tokenizers.Tokenizer.from_str(tokenizer_json)
    except Exception as error:
        raise FramepredError(f"{TOKENIZER_JSON} cannot be used ({error}): copy that of the LLM again") from error


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """Text → ids by a `text_tokenizer`, without a beginning or end of text."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def tokenizer_json(vocabulary: Vocabulary, text: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a tokenizer.json of all ids: a text range as `text` has it, and behind it the readable names.

    Raises FramepredError where `text` has ids past the text range or already has one of the names.
    """
    names = token_names(vocabulary)
    result = copy.deepcopy(text) if text else _no_text()
    # A run's own tokenizer.json may be extended already: names at their own ids are as they should be.
    taken = result["model"]["vocab"] | {token["content"]: token["id"] for token in result["added_tokens"]}
    for token, id in taken.items():
        if names.get(id, token) != token or (id >= vocabulary.text_size and id not in names):
            raise FramepredError(
                f"{TOKENIZER_JSON}: token {token!r} has id {id}, the run's text ids end at {vocabulary.text_size - 1}: "
                "it is not the tokenizer of this run's LLM"
            )
    for id, name in names.items():
        if taken.get(name, id) != id:
            raise FramepredError(
                f"{TOKENIZER_JSON} has a token {name!r} of its own, id {taken[name]}: the names collide"
            )
    # In the model's vocabulary, an id need not follow the one before: a text range may be padded.
    result["model"]["vocab"] |= {name: id for id, name in names.items()}
    own = {token["id"] for token in result["added_tokens"]}
    special = set(vocabulary.to_json()["special"].values())
    result["added_tokens"] += [
        {
            "id": id, "content": name, "special": id in special,
            "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
        }
        for id, name in names.items() if id not in own
    ]  # fmt: skip
    return result


def _no_text() -> dict[str, Any]:
    """A tokenizer that knows names only: text between them is an error, not silently lost."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": {}, "unk_token": "<|unknown|>"},
    }
