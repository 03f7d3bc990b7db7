"""Runs ⇄ the Hugging Face Hub: push with a generated model card, pull into a folder."""

import json
import tempfile
from pathlib import Path
from typing import Any

from framepred.engines.export import export
from framepred.errors import FramepredError
from framepred.io import hub, zoo
from framepred.io.atomic import writing_folder
from framepred.io.model_files import copy_model_files
from framepred.world.info import describe
from framepred.world.run import weights_file

_ROWS = {
    "frame_size": "frame, pixels (height, width)",
    "fit": "how pictures of another shape fit",
    "fps": "frames a second",
    "tokens_per_frame": "tokens a frame",
    "codebook_size": "codebook",
    "window_frames": "window, frames",
    "actions": "actions",
    "parameters": "parameters of the Llama",
    "layers": "layers",
    "hidden_size": "width",
    "tokenizer_sha256": "sha256 of the frame tokenizer",
}


def push(model: str | Path, address: str, private: bool = False) -> str:
    """Upload a run to `hf://owner/name` with a model card; return the page's address.

    What goes up is its `hf` export: framepred, transformers and vLLM load it by that name. A run that is
    a GGUF goes up as it is.
    """
    target = hub.Address.parse(address)
    folder = zoo.resolve("models", model)
    with tempfile.TemporaryDirectory(prefix="framepred-") as scratch:
        staged = Path(scratch) / "run"
        if weights_file(folder).suffix == ".gguf":
            copy_model_files(folder, staged)
        else:
            export(folder, staged, "hf")
        (staged / "README.md").write_text(model_card(folder, target.repo), encoding="utf-8")
        return hub.upload(staged, target, private)


def pull(address: str, out: Path) -> dict[str, Any]:
    """Download the run or tokenizer at `hf://owner/name[@revision][/folder]`; return its facts.

    What is broken, or neither, is an error and leaves nothing; the folder appears whole.
    """
    if out.exists():
        raise FramepredError(f"{out} exists already: choose another folder")
    with writing_folder(out) as copy:
        facts = download(address, copy)
    return facts | {"path": str(out)}


def download(address: str, folder: Path) -> dict[str, Any]:
    """Copy what `pull` downloads into a folder that is there and empty; return its facts."""
    target = hub.Address.parse(address)
    cached = hub.resolve(address)
    facts = describe(str(cached)) if (cached / "config.json").is_file() else {}
    if facts.get("kind") not in ("run", "tokenizer"):
        raise FramepredError(f"{target} is neither a run nor a tokenizer of framepred: check the name")
    copy_model_files(cached, folder)
    return facts


def model_card(folder: Path, repo: str) -> str:
    """Return the card of a run: what it is, how to use it, how it was trained; its own README.md goes last."""
    facts = describe(str(folder))
    table = "\n".join(f"| {label} | {_shown(facts[key])} |" for key, label in _ROWS.items())
    readme = folder / "README.md"
    own = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    front = "---\nlibrary_name: framepred\ntags:\n- framepred\n- world-model\n- video-prediction\n- llama\n---"
    if own.startswith("---\n"):
        head, _, own = own.removeprefix("---\n").partition("\n---")
        front = f"---\n{head}\n---"
    return (
        f"""{front}

# {repo.split("/")[1]}

A video predictor made with framepred: a tokenizer turns each frame into tokens, a Llama predicts the next
token, the tokens of the next frame turn back into pixels.

```bash
framepred rollout CLIP.mp4 --model hf://{repo}
```

The Llama is a plain checkpoint, its ids under readable names (`<|v_0123|>`, `<|a_3|>`):

```python
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("{repo}")
tokenizer = AutoTokenizer.from_pretrained("{repo}")
```

| | |
|---|---|
{table}
{_training(folder / "metrics.jsonl")}
{own.strip()}
""".rstrip()
        + "\n"
    )


def _shown(value: Any) -> str:
    return " x ".join(map(str, value)) if isinstance(value, list) else "none" if value is None else str(value)


def _training(metrics: Path) -> str:
    """Return each stage's last validation in metrics.jsonl, as Markdown."""
    last: dict[str, dict[str, Any]] = {}
    lines = metrics.read_text().splitlines() if metrics.is_file() else []
    for row in (json.loads(line) for line in lines if line.endswith("}")):
        if any(key.startswith("validation") for key in row):
            last[row["stage"]] = row
    shown = [
        f"- {stage}: step {row['step']}, "
        + ", ".join(f"{key.replace('_', ' ')} {row[key]:.4g}" for key in row if key.startswith("validation"))
        for stage, row in last.items()
    ]
    return "\n**Training**, last validation:\n\n" + "\n".join(shown) + "\n" if shown else ""
