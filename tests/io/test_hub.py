"""A run goes up to a Hub and comes down the same; without a network, one line says so."""

import base64
import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import huggingface_hub
import pytest
import torch
from click.testing import CliRunner, Result
from huggingface_hub import constants, hf_api
from random_run import random_context, write_random_run

from framepred.cli import cli
from framepred.decoding.sampling import Sampling
from framepred.engines.publish import model_card
from framepred.errors import FramepredError
from framepred.io import hub
from framepred.tokenizer.checkpoint import load_tokenizer
from framepred.world.rollout import predict
from framepred.world.run import load_run

REPO = "someone/small-world"


class Hub:
    """As much of the Hub's interface as pushing and pulling take; `refuse` answers everything with a status."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.created: list[dict[str, Any]] = []
        self.downloads: list[str] = []
        self.refuse: tuple[int, dict[str, str]] | None = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def reply(self, body: bytes, status: int = 200, **headers: str) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if outer.refuse:
                    status, headers = outer.refuse
                    self.reply(b"{}", status, **headers)
                    return
                self.reply(*outer.answer(self.command, unquote(urlparse(self.path).path), body)[:2],
                           **outer.headers)  # fmt: skip

            do_GET = do_POST = do_HEAD = handle_any

            def log_message(self, *_: Any) -> None:
                pass

        self.headers: dict[str, str] = {}
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def commit(self, repo: str) -> str:
        content = sorted((name, hashlib.sha1(data).hexdigest()) for name, data in self.repos[repo].items())
        return hashlib.sha1(repr(content).encode()).hexdigest()

    def answer(self, method: str, path: str, body: bytes) -> tuple[bytes, int]:
        self.headers = {}
        parts = path.strip("/").split("/")
        if path == "/api/repos/create":
            given = json.loads(body)
            self.created.append(given)
            repo = f"{given['organization']}/{given['name']}" if given.get("organization") else given["name"]
            self.repos.setdefault(repo, {})
            return json.dumps({"url": f"{self.url}/{repo}"}).encode(), 200
        if path == "/api/validate-yaml":
            return b'{"errors": [], "warnings": []}', 200
        if parts[0] != "api":
            repo, name = "/".join(parts[:2]), "/".join(parts[4:])
            data = self.repos[repo].get(name)
            if data is None:
                self.headers = {"X-Error-Code": "EntryNotFound"}
                return b"", 404
            if method == "GET":
                self.downloads.append(name)
            self.headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": self.commit(repo)}
            return data, 200
        repo, action = "/".join(parts[2:4]), parts[4] if len(parts) > 4 else "revision"
        if repo not in self.repos:
            self.headers = {"X-Error-Code": "RepoNotFound"}
            return b"{}", 404
        files = self.repos[repo]
        if action == "revision" and len(parts) > 5 and parts[5] not in ("main", self.commit(repo)):
            self.headers = {"X-Error-Code": "RevisionNotFound"}
            return b"{}", 404
        if action == "revision":
            return json.dumps({"id": repo, "sha": self.commit(repo), "siblings": []}).encode(), 200
        if action == "tree":
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in files.items()
            ]
            return json.dumps(tree).encode(), 200
        if action == "preupload":
            asked = json.loads(body)["files"]
            modes = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]
            return json.dumps({"files": modes}).encode(), 200
        assert (method, action) == ("POST", "commit"), path
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        oid = self.commit(repo)
        return json.dumps({"commitUrl": f"{self.url}/{repo}/commit/{oid}", "commitOid": oid}).encode(), 200


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    made = Hub()
    _use(monkeypatch, made.url, tmp_path / "cache")
    yield made
    made.http.shutdown()
    made.http.server_close()


def _use(monkeypatch: pytest.MonkeyPatch, url: str, cache: Path) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(hf_api.api, "endpoint", url)
    monkeypatch.setenv("HF_TOKEN", "hf_test")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_random_run(tmp_path_factory.mktemp("hub") / "run")
    lines = [
        {"stage": "predictor", "step": 5, "loss": 3.0},
        {"stage": "predictor", "step": 10, "loss": 2.0, "validation_loss": 2.5},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"stage": "pre')
    (folder / "resume-predictor.safetensors").write_bytes(b"state")
    (folder / "tokens").mkdir()
    (folder / "tokens" / "framepred.json").write_text("{}")
    return folder


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="framepred")


def refused(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 1, (result.stdout, result.exception)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


def test_a_run_goes_up_and_comes_down_the_same(server: Hub, run_dir: Path, tmp_path: Path) -> None:
    pushed = invoke("push", run_dir, f"hf://{REPO}", "--private", "--json")
    assert pushed.exit_code == 0, pushed.stderr
    assert json.loads(pushed.stdout) == {"path": f"hf://{REPO}", "page": f"{server.url}/{REPO}"}
    assert "private" in (server.created[0].get("visibility"), *server.created[0])
    assert set(server.repos[REPO]) == {
        "README.md", "config.json", "framepred.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "tokenizer/config.json", "tokenizer/model.safetensors", "tokenizer/recipe.toml",
    }  # fmt: skip

    pulled = invoke("pull", f"hf://{REPO}", "-o", tmp_path / "mine", "--json")
    assert pulled.exit_code == 0, pulled.stderr
    facts = json.loads(pulled.stdout)
    assert (facts["kind"], facts["path"]) == ("run", str(tmp_path / "mine"))
    assert not any(p.is_symlink() for p in (tmp_path / "mine").rglob("*"))
    assert {p.name for p in tmp_path.iterdir()} == {"cache", "mine"}
    context, actions = random_context()
    before, after = (
        torch.stack([p.tokens for p in predict(load_run(f), context, actions, 3, 1, Sampling(seed=1))])
        for f in (run_dir, tmp_path / "mine")
    )
    assert torch.equal(before, after)
    assert "exists already" in refused("pull", f"hf://{REPO}", "-o", tmp_path / "mine")
    assert invoke("pull", f"hf://{REPO}", "-o", tmp_path / "mine", "--overwrite").exit_code == 0


def test_every_run_path_may_be_on_the_hub(server: Hub, run_dir: Path, tmp_path: Path) -> None:
    hub.upload(run_dir, hub.Address(REPO), private=False)
    assert load_run(f"hf://{REPO}").window == 6
    commit = server.commit(REPO)
    assert load_run(Path(f"hf://{REPO}@{commit}")).window == 6
    assert load_tokenizer(f"hf://{REPO}").codebook_size == 64
    server.downloads.clear()
    assert load_tokenizer(f"hf://{REPO}/tokenizer").codebook_size == 64
    assert json.loads(invoke("info", f"hf://{REPO}", "--json").stdout)["kind"] == "run"
    assert json.loads(invoke("info", f"hf://{REPO}/tokenizer", "--json").stdout)["kind"] == "tokenizer"
    exported = invoke("export", f"hf://{REPO}", "-o", tmp_path / "out", "--format", "hf")
    assert exported.exit_code == 0, exported.stderr
    assert server.downloads == []  # Everything was here already.


def test_only_the_files_asked_for_are_downloaded(server: Hub, run_dir: Path) -> None:
    hub.upload(run_dir, hub.Address(REPO), private=False)
    folder = hub.resolve(f"hf://{REPO}/tokenizer", ["*.json"])
    assert server.downloads == ["tokenizer/config.json"]
    assert [p.name for p in folder.iterdir()] == ["config.json"]


def test_what_was_downloaded_works_without_a_network(
    server: Hub, run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.upload(run_dir, hub.Address(REPO), private=False)
    load_run(f"hf://{REPO}")
    _use(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")
    assert load_run(f"hf://{REPO}").window == 6
    line = refused("info", "hf://someone/else")
    assert line.startswith("framepred: hf://someone/else: the Hub cannot be reached (")
    assert line.endswith("go online; what was downloaded before works without")
    assert "cannot be reached" in refused("push", run_dir, f"hf://{REPO}")
    assert "cannot be reached" in refused("pull", "hf://someone/else", "-o", tmp_path / "out")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "cannot be reached (HF_HUB_OFFLINE is set)" in refused("info", "hf://someone/else")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("hf://someone", "'hf://someone' is no address on the Hub: give hf://owner/name"),
        ("hf://", "is no address on the Hub"),
        ("hf://a/b/../../etc", "is no address on the Hub"),
        ("hf://a/b c", "is no address on the Hub"),
        ("hf://a/--b", "the Hub does not take this: Repo id must"),
        ("hf://someone/missing", "is not on the Hub, or is private"),
        (f"hf://{REPO}@nothing", "has no such revision"),
        (f"hf://{REPO}/nothing", "has no folder 'nothing'"),
    ],
)
def test_addresses_that_lead_nowhere(server: Hub, address: str, said: str) -> None:
    server.repos[REPO] = {"README.md": b"hello"}
    with pytest.raises(FramepredError, match="hf://") as raised:
        hub.resolve(address)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("status", "headers", "said"),
    [
        (403, {}, "the Hub does not let you (403); log in with `hf auth login`"),
        (403, {"X-Error-Code": "GatedRepo"}, "is gated: accept its terms"),
        (401, {"X-Error-Code": "RepoNotFound"}, "is not on the Hub, or is private"),
        (418, {}, "the Hub answers 418"),
    ],
)
def test_a_hub_that_refuses(server: Hub, run_dir: Path, status: int, headers: dict[str, str], said: str) -> None:
    server.refuse = status, headers
    assert said in refused("info", f"hf://{REPO}")
    assert said in refused("push", run_dir, f"hf://{REPO}")


def test_what_is_no_run_is_not_pulled(server: Hub, run_dir: Path, tmp_path: Path) -> None:
    server.repos[REPO] = {"README.md": b"hello"}
    assert "neither a run nor a tokenizer" in refused("pull", f"hf://{REPO}", "-o", tmp_path / "out")
    hub.upload(run_dir, hub.Address("someone/broken"), private=False)
    server.repos["someone/broken"]["tokenizer/model.safetensors"] = b"broken"
    assert "restore the tokenizer" in refused("pull", "hf://someone/broken", "-o", tmp_path / "out")
    assert {p.name for p in tmp_path.iterdir()} == {"cache"}


def test_push_takes_whole_repositories_of_whole_runs(server: Hub, run_dir: Path, tmp_path: Path) -> None:
    assert "give hf://owner/name" in refused("push", run_dir, f"hf://{REPO}/deep/er")
    assert "is no address on the Hub" in refused("push", run_dir, REPO)
    shutil.copytree(run_dir, tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").unlink()
    assert "does not exist" in refused("push", tmp_path / "run", f"hf://{REPO}")
    assert server.repos == {}


def test_a_gguf_goes_up_as_it_is(server: Hub, run_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    assert invoke("export", run_dir, "-o", tmp_path / "q", "--format", "gguf", "--quantize", "q8_0").exit_code == 0
    pushed = invoke("push", tmp_path / "q", f"hf://{REPO}")
    assert pushed.exit_code == 0, pushed.stderr
    assert server.repos[REPO]["model.gguf"] == (tmp_path / "q" / "model.gguf").read_bytes()
    assert load_run(f"hf://{REPO}").window == 6


def test_the_card_tells_what_the_run_is(run_dir: Path, tmp_path: Path) -> None:
    card = model_card(run_dir, REPO)
    metadata = huggingface_hub.ModelCard(card).data.to_dict()
    assert metadata["library_name"] == "framepred"
    assert "world-model" in metadata["tags"]
    for line in (
        "# small-world",
        "framepred rollout CLIP.mp4 --model hf://someone/small-world",
        "| tokens a frame | 16 |",
        "| frame, pixels (height, width) | 32 x 32 |",
        "| actions | 4 discrete ids |",
        "- predictor: step 10, validation loss 2.5",
    ):
        assert line in card.splitlines()
    shutil.copytree(run_dir, tmp_path / "run")
    (tmp_path / "run" / "README.md").write_text("---\nlicense: apache-2.0\n---\nMade on a rainy day.\n")
    own = model_card(tmp_path / "run", REPO)
    assert huggingface_hub.ModelCard(own).data.to_dict() == {"license": "apache-2.0"}
    assert own.endswith("Made on a rainy day.\n")
    assert "# small-world" in own
