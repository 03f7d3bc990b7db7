"""Which files a run or tokenizer is made of, and how they are copied."""

import shutil
from fnmatch import fnmatch
from pathlib import Path

MODEL_FILES = ("*.json", "*.jsonl", "*.safetensors", "*.gguf", "*.toml", "*.md", "*.jinja")
"""What a run or tokenizer is made of, here or for other engines: no code, no pickles."""


def copy_model_files(source: Path, target: Path) -> None:
    """Copy what a run or tokenizer is made of into `target`, sub-folders too; no code, no pickles, nothing hidden."""

    def left_out(folder: str, names: list[str]) -> list[str]:
        return [n for n in names if n.startswith(".") or not ((Path(folder) / n).is_dir() or _is_model_file(n))]

    shutil.copytree(source, target, ignore=left_out, dirs_exist_ok=True)


def _is_model_file(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in MODEL_FILES)
