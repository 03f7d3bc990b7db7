"""The Hugging Face Hub: `hf://owner/name` ⇄ a folder here."""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from framepred.errors import FramepredError
from framepred.io.atomic import to_read
from framepred.io.model_files import MODEL_FILES

# A Path collapses the two slashes.
_ADDRESS = re.compile(r"hf:/{1,2}([\w.-]+/[\w.-]+)(?:@([^/\s]+))?(?:/([^\s]+?))?/?")


@dataclass(frozen=True)
class Address:
    """A place on the Hub: `hf://owner/name`, and optionally `@revision` and a folder inside."""

    repo: str
    revision: str | None = None
    folder: str | None = None

    @staticmethod
    def parse(text: str) -> "Address":
        """Read an address, or raise FramepredError."""
        found = _ADDRESS.fullmatch(text)
        if not found or ".." in text:
            raise FramepredError(f"{text!r} is no address on the Hub: give hf://owner/name[@revision][/folder]")
        return Address(*found.groups())

    def __str__(self) -> str:
        revision, folder = self.revision and f"@{self.revision}", self.folder and f"/{self.folder}"
        return f"hf://{self.repo}{revision or ''}{folder or ''}"


def is_address(name_or_path: str | Path) -> bool:
    """Say whether a name means a place on the Hub."""
    return str(name_or_path).startswith("hf:/")


def resolve(name_or_path: str | Path, files: Sequence[str] | None = None, kind: str = "model") -> Path:
    """Return the local folder that `hf://owner/name[@revision][/folder]` means, downloaded; a path as it is.

    `files` are the patterns of what to download, by default what a run or tokenizer is made of; `kind` is "model" or
    "dataset". What was downloaded before is used without a network.
    """
    if not is_address(name_or_path):
        return to_read(name_or_path)
    address = Address.parse(str(name_or_path))
    inside = f"{address.folder}/" if address.folder else ""
    with _client(address) as hub:
        root = hub.snapshot_download(
            address.repo, repo_type=kind, revision=address.revision,
            allow_patterns=[inside + f for f in files or MODEL_FILES],
        )  # fmt: skip
    folder = Path(root) / (address.folder or "")
    if not folder.is_dir():
        raise FramepredError(f"hf://{address.repo} has no folder {address.folder!r}: check the name")
    return folder


def upload(folder: Path, address: Address, private: bool) -> str:
    """Write a folder into a repository as one commit, creating it where needed; return its page."""
    if address.folder:
        raise FramepredError(f"{address}: a run is a repository of its own; give hf://owner/name")
    with _client(address) as hub:
        page = hub.create_repo(address.repo, private=private, exist_ok=True)
        hub.upload_folder(
            repo_id=address.repo, folder_path=folder, revision=address.revision, commit_message="framepred push"
        )
    return str(page)


@contextmanager
def _client(address: Address) -> Iterator[ModuleType]:
    """Yield huggingface_hub, quiet; its errors become one line each."""
    import huggingface_hub as hub
    from huggingface_hub import errors
    from huggingface_hub.utils import disable_progress_bars, logging  # type: ignore[attr-defined]

    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        yield hub
    except (
        errors.HTTPError,  # type: ignore[attr-defined]
        errors.LocalEntryNotFoundError, errors.LocalTokenNotFoundError, ConnectionError, ValueError,
    ) as error:  # fmt: skip
        raise FramepredError(f"{address}{_explain(error)}") from error


def _explain(error: Exception) -> str:
    """Say what went wrong and what to do, as the rest of a sentence that begins with the address."""
    from huggingface_hub import constants, errors

    # A failed download says only that no file is here; its cause says why.
    if isinstance(error.__cause__, errors.HfHubHTTPError):
        error = error.__cause__
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__).removeprefix("Got: ")[:160]
    match error:
        case errors.GatedRepoError():
            return " is gated: accept its terms on its page, then log in with `hf auth login`"
        case errors.RepositoryNotFoundError():
            return " is not on the Hub, or is private: check the name, or log in with `hf auth login`"
        case errors.RevisionNotFoundError():
            return " has no such revision: check the name"
        case errors.LocalTokenNotFoundError():
            return ": nobody is logged in to the Hub; log in with `hf auth login`"
        case errors.HfHubHTTPError() if error.response.status_code in (401, 403):
            status = error.response.status_code
            return f": the Hub does not let you ({status}); log in with `hf auth login`, with a token that may do this"
        case errors.HfHubHTTPError():
            return f": the Hub answers {error.response.status_code} ({reason}); try again later"
        case ValueError():
            return f": the Hub does not take this: {reason}"
    reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else reason
    return f": the Hub cannot be reached ({reason}): go online; what was downloaded before works without"
