"""Names → folders: the tokenizers and runs that come with framepred, and those on the Hugging Face Hub."""

from pathlib import Path

from framepred.errors import FramepredError

DEFAULT = "doom-64"


def _roots(kind: str) -> list[Path]:
    package = Path(__file__).parent
    # A wheel carries the zoo inside the package; a checkout has it beside.
    return [root for root in (package / "shipped" / kind, package.parent / kind) if root.is_dir()]


def names(kind: str) -> list[str]:
    """Return the names in the zoo of `kind`: "tokenizers" or "models"."""
    return sorted({p.name for root in _roots(kind) for p in root.iterdir() if (p / "config.json").is_file()})


def resolve(kind: str, name_or_dir: str | Path) -> Path:
    """Return the folder that a name or path means; "tokenizers" or "models" say which zoo."""
    if is_address(name_or_dir):
        return _fetched(str(name_or_dir))
    path = Path(name_or_dir)
    if path.is_dir():
        return path
    for root in _roots(kind):
        if (root / str(name_or_dir) / "config.json").is_file():
            return root / str(name_or_dir)
    what = kind.removesuffix("s")
    known = ", ".join(names(kind)) or "none here"
    raise FramepredError(f"{what} {str(name_or_dir)!r} is neither a folder nor in the zoo; the zoo has: {known}")


def is_address(name: str | Path) -> bool:
    """Say whether a name is a place on the Hugging Face Hub: hf://owner/name."""
    return str(name).startswith("hf://")


def _fetched(address: str) -> Path:
    """Download hf://owner/name[/folder][@revision], or take it from the cache; no code and no pickles."""
    place, _, revision = address.removeprefix("hf://").partition("@")
    owner, name, *inside = [*place.strip("/").split("/"), ""]
    if not (owner and name):
        raise FramepredError(
            f"{address} is not whole: give hf://owner/name, hf://owner/name/folder or either with @revision"
        )
    folder = "/".join(filter(None, inside))
    wanted = [f"{folder}/{p}".lstrip("/") for p in ("*.json", "*.safetensors", "*.toml", "*.md")]
    from huggingface_hub import snapshot_download

    try:
        path = Path(snapshot_download(f"{owner}/{name}", revision=revision or None, allow_patterns=wanted)) / folder
    # Network stacks raise nearly anything.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FramepredError(
            f"cannot fetch {address} ({reason}): check the name and the network, or download it elsewhere "
            "and give the folder"
        ) from error
    if not (path / "config.json").is_file():
        raise FramepredError(
            f"{address} holds no config.json: give the folder of the model in it, hf://owner/name/folder"
        )
    return path


def tokenizer_folder(name_or_dir: str | Path) -> Path:
    """Return the folder of a tokenizer that is named, given, or part of a run."""
    for kind in ("tokenizers", "models"):
        if str(name_or_dir) in names(kind):
            folder = resolve(kind, name_or_dir)
            break
    else:
        folder = resolve("tokenizers", name_or_dir)
    return folder / "tokenizer" if (folder / "tokenizer").is_dir() else folder
