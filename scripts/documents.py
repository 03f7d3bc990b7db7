"""Text that any machine has: files as they are, and of Python's sources what they say of themselves."""

import ast
import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path

_PACKED = (".gz", ".dz")
_READ = ("", ".txt", ".md", ".rst", ".py", *_PACKED)
_NOT_READ = {"test", "tests", "site-packages", "dist-packages", "__pycache__", "idlelib", "lib2to3"}
_DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_LEAST = 200


def documents(sources: Sequence[str | Path]) -> Iterator[tuple[str, str]]:
    """Yield (name, text) of the files and those below the folders, sorted within each, each text once.

    Of a .py it is the documentation strings; .gz and .dz (dictd's) are unpacked. What is no UTF-8, or shorter than 200
    characters, is passed over.
    """
    seen = set()
    for root in map(Path, sources):
        files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
        for file in files:
            inside = file.relative_to(root.parent)
            if file.suffix not in _READ or _NOT_READ & set(inside.parts):
                continue
            try:
                packed = file.suffix in _PACKED
                text = gzip.decompress(file.read_bytes()).decode() if packed else file.read_text(encoding="utf-8")
                text = _documentation(text) if file.suffix == ".py" else text
            except (UnicodeDecodeError, SyntaxError, gzip.BadGzipFile):
                continue
            if len(text) >= _LEAST and text not in seen:
                seen.add(text)
                yield str(inside), text


def _documentation(code: str) -> str:
    found = (ast.get_docstring(node) for node in ast.walk(ast.parse(code)) if isinstance(node, _DOCUMENTED))
    return "\n\n".join(filter(None, found))
