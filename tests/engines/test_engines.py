"""Every engine gives framepred's greedy frames; what is not installed, reached or understood is said in one line."""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from conftest import FPS, moving_square
from random_run import WINDOW, random_context, write_random_run

from framepred.cli import cli
from framepred.decoding.sampling import Sampling
from framepred.engines.contract import completion_request, llama_cpp_engine, predict_by
from framepred.engines.export import export
from framepred.errors import FramepredError
from framepred.sources.actions_csv import write_actions
from framepred.video.write import write_video
from framepred.world.rollout import predict
from framepred.world.run import Run, load_run

GREEDY = Sampling(temperature=0.0)
NEEDS = {"transformers": ("transformers",), "llama.cpp": ("xllamacpp", "gguf"), "vllm": ()}
Answer = Callable[[dict[str, Any]], tuple[int, bytes]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return load_run(write_random_run(tmp_path_factory.mktemp("engines") / "run", spare=2))


class Server:
    """A local server with vLLM's interface; `answer` decides what a completion is answered."""

    def __init__(self, answer: Answer) -> None:
        self.requests: list[dict[str, Any]] = []
        self.answer = answer
        self.models = b'{"data": [{"id": "exported/run"}]}'
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def reply(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                assert self.path == "/v1/models"
                self.reply(200, outer.models)

            def do_POST(self) -> None:
                assert self.path == "/v1/completions"
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append(body)
                self.reply(*outer.answer(body))

            def log_message(self, *_: Any) -> None:
                pass

        self.http = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


def completion(ids: Any) -> bytes:
    return json.dumps({"choices": [{"text": "", "token_ids": ids}]}).encode()


@pytest.fixture
def server(run: Run) -> Iterator[Server]:
    """A server that runs the run itself, greedily, on the ids that a request allows."""

    @torch.inference_mode()
    def answer(body: dict[str, Any]) -> tuple[int, bytes]:
        ids, allowed = list(body["prompt"]), torch.tensor(body["allowed_token_ids"])
        for _ in range(body["max_tokens"]):
            scores = run.predictor(torch.tensor([ids]))[0, -1]
            ids.append(int(allowed[scores[allowed].argmax()]))
        return 200, completion(ids[len(body["prompt"]) :])

    made = Server(answer)
    yield made
    made.http.shutdown()
    made.http.server_close()


def tokens_of(frames: Any) -> torch.Tensor:
    return torch.stack([p.tokens for p in frames], 1)


def installed(name: str) -> None:
    for package in NEEDS.get(name, ()):
        pytest.importorskip(package)


@pytest.mark.parametrize("name", NEEDS)
def test_greedy_frames_are_those_of_framepred(run: Run, server: Server, name: str) -> None:
    installed(name)
    context, actions = random_context()
    for given in (actions, None):
        expected = list(predict(run, context, given, 9, 1, GREEDY))
        made = list(predict_by(name, run, context, given, 9, 1, GREEDY, server.url))
        # Nine frames are more than the window: it slides twice. And none is a copy of another.
        assert len({tuple(p.tokens.flatten().tolist()) for p in expected}) == 9
        assert [p.index for p in made] == [p.index for p in expected]
        assert torch.equal(tokens_of(made), tokens_of(expected))
        assert all(torch.equal(a.frames, b.frames) for a, b in zip(made, expected, strict=True))
        assert made[-1].passes == 9 * 16


@pytest.mark.parametrize("name", ["transformers", "llama.cpp"])
def test_sampled_frames_are_legal_repeatable_and_different(run: Run, name: str) -> None:
    installed(name)
    context, actions = random_context()
    # Hot enough that ids out of the legal range, 5 of 71, would show.
    first, again, other = (
        tokens_of(predict_by(name, run, context, actions, 4, 3, Sampling(50.0, seed=seed))) for seed in (1, 1, 2)
    )
    assert first.shape == (3, 4, 4, 4)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])
    assert 0 <= int(first.min()) <= int(first.max()) < 64
    assert len(first.unique()) > 40


@pytest.mark.parametrize("name", [*NEEDS, "framepred"])
@pytest.mark.parametrize("temperature", [1e-30, 100.0])
def test_the_likeliest_of_one_is_greedy_at_any_temperature(
    run: Run, server: Server, name: str, temperature: float
) -> None:
    installed(name)
    context, actions = random_context(2)
    asked, expected = (run, context, actions, 2, 2), Sampling(temperature, top_k=1, seed=5)
    one = predict(*asked, expected) if name == "framepred" else predict_by(name, *asked, expected, server.url)
    assert torch.equal(tokens_of(one), tokens_of(predict(*asked, GREEDY)))
    assert all(body["temperature"] == 0 for body in server.requests)


def test_llama_cpp_runs_the_gguf_of_an_export(run: Run, tmp_path: Path) -> None:
    installed("llama.cpp")
    coarse = export(run.path, tmp_path / "q4", "gguf", "q4_0")
    context, actions = random_context()
    made, exact = (tokens_of(predict_by("llama.cpp", r, context, actions, 4, 1, GREEDY)) for r in (coarse, run))
    assert not torch.equal(made, exact)
    # framepred on the same file says the same, but for what llama.cpp rounds on the way.
    own = tokens_of(predict(coarse, context, actions, 1, 1, GREEDY))[:, 0]
    assert (made[:, 0] == own).float().mean() >= (exact[:, 0] == own).float().mean()
    (tmp_path / "q4" / "model.gguf").write_bytes(b"nothing")
    with pytest.raises(FramepredError, match=r"llama\.cpp cannot load"):
        llama_cpp_engine(coarse, GREEDY, None)


def test_a_vllm_request_asks_for_legal_ids_only(run: Run, server: Server) -> None:
    context, actions = random_context(1)
    sampling = Sampling(0.5, top_k=7, top_p=0.9, seed=3)
    list(predict_by("vllm", run, context, actions, 2, 2, sampling, server.url + "/v1/"))
    assert len(server.requests) == 4
    first = server.requests[0]
    assert first["prompt"] == run.layout.pack(context, run.layout.action_ids(actions, 1)).tolist()
    assert first["allowed_token_ids"] == list(range(64))
    assert {k: first[k] for k in ("model", "max_tokens", "min_tokens", "ignore_eos", "return_token_ids")} == {
        "model": "exported/run", "max_tokens": 16, "min_tokens": 16, "ignore_eos": True, "return_token_ids": True,
    }  # fmt: skip
    assert (first["temperature"], first["top_k"], first["top_p"]) == (0.5, 7, 0.9)
    assert len({request["seed"] for request in server.requests}) == 4
    assert all(0 <= request["seed"] < 2**31 for request in server.requests)
    assert first == completion_request("exported/run", sampling, first["prompt"], 16, (0, 64), first["seed"])


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, b"<html>hello</html>", "answers '<html>hello</html>', which is no completion"),
        (200, b"[]", "which is no completion with token_ids"),
        (200, completion(None), "which is no completion with token_ids"),
        (200, completion(["a"]), "which is no completion with token_ids"),
        (200, completion([1, 2, 3]), r"gave 3 ids \[1, 2, 3\], not 16 from 0 to 63"),
        (200, completion([70] * 16), "it runs another model than"),
        (400, b'{"error": {"message": "token id 5000 is\\n out of vocabulary"}}', r"refuses \(400 .*out of vocabulary"),
        (500, b"", r"refuses \(500 \)"),
    ],
)
def test_nonsense_from_a_server_is_one_line(run: Run, server: Server, status: int, body: bytes, said: str) -> None:
    server.answer = lambda _: (status, body)
    context, _ = random_context()
    with pytest.raises(FramepredError, match=said) as raised:
        list(predict_by("vllm", run, context, None, 1, 1, GREEDY, server.url))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("models", [b"{}", b"null", b'{"data": []}', b"not json"])
def test_a_server_without_a_model_is_no_vllm(run: Run, server: Server, models: bytes) -> None:
    server.models = models
    with pytest.raises(FramepredError, match="which is no completion"):
        list(predict_by("vllm", run, random_context()[0], None, 1, 1, GREEDY, server.url))


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "nonsense", "http://[bad", "file:///etc/passwd"])
def test_a_server_that_is_not_there(run: Run, url: str) -> None:
    with pytest.raises(FramepredError, match=r"server .* cannot be reached \(.*\): start `vllm serve DIR`"):
        list(predict_by("vllm", run, random_context()[0], None, 1, 1, GREEDY, url))


@pytest.mark.parametrize(
    ("name", "package"), [("transformers", "transformers"), ("llama.cpp", "xllamacpp"), ("llama.cpp", "gguf")]
)
def test_an_engine_that_is_not_installed_names_the_extra(
    run: Run, name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if package == "gguf":
        pytest.importorskip("xllamacpp")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(FramepredError, match=rf"needs (the )?{package}.*pip install 'framepred\[(engines|export)\]'"):
        list(predict_by(name, run, random_context()[0], None, 1, 1, GREEDY))


def test_an_unknown_engine_is_refused(run: Run) -> None:
    with pytest.raises(FramepredError, match="engine 'tgi' is not known; give one of framepred, transformers"):
        list(predict_by("tgi", run, random_context()[0], None, 1, 1, GREEDY))


@pytest.fixture
def clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    frames, actions = moving_square(0, 14)
    write_video(tmp_path / "clip.mp4", frames, FPS, lossless=True)
    write_actions(tmp_path / "clip.actions.csv", actions, ["action"])
    return tmp_path / "clip.mp4"


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="framepred")


def test_rollout_decodes_through_a_server(run: Run, server: Server, clip: Path) -> None:
    import numpy as np

    base = ("rollout", clip, "--model", run.path, "--horizon", 8, "--temperature", 0, "--json")
    served = invoke(*base, "-o", "a.npz", "--engine", "vllm", "--server", server.url)
    own = invoke(*base, "-o", "b.npz")
    assert (served.exit_code, own.exit_code, served.stderr) == (0, 0, "")
    summaries = [json.loads(result.stdout) for result in (served, own)]
    assert [(s["engine"], s["decoder"]) for s in summaries] == [("vllm", None), ("framepred", "speculative")]
    assert summaries[0]["psnr"] == summaries[1]["psnr"]
    with np.load("a.npz") as a, np.load("b.npz") as b:
        assert all(np.array_equal(a[k], b[k]) for k in ("tokens", "frames", "ids", "actions"))


def test_rollout_says_where_framepreds_seed_does_not_hold(run: Run, server: Server, clip: Path) -> None:
    arguments = ("rollout", clip, "--model", run.path, "--horizon", 1, "-o", "a.npz")
    said = invoke(*arguments, "--engine", "vllm", "--server", server.url)
    assert said.exit_code == 0
    assert "warning: vllm draws by its own random numbers" in said.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--engine", "vllm", "--decoder", "sequential"), "decoder 'sequential' is framepred's own"),
        (("--server", "http://localhost:1"), "is for the engine vllm, not framepred: give --engine vllm"),
        (("--engine", "vllm", "--server", "http://127.0.0.1:9", "--temperature", "0"), "cannot be reached"),
    ],
)
def test_rollout_refuses_in_one_line(run: Run, clip: Path, options: tuple[str, ...], said: str) -> None:
    refused = invoke("rollout", clip, "--model", run.path, "-o", "a.npz", "--horizon", 4, *options)
    assert refused.exit_code == 1
    assert len(refused.stderr.splitlines()) == 1
    assert said in refused.stderr
    assert not Path("a.npz").exists()


def test_what_a_window_holds_is_all_that_an_engine_reads(run: Run, server: Server) -> None:
    context, _ = random_context()
    list(predict_by("vllm", run, context, None, 12, 1, GREEDY, server.url))
    assert max(len(request["prompt"]) for request in server.requests) <= (WINDOW - 1) * run.layout.stride


def test_words_stand_before_the_frames_of_every_request(run: Run, server: Server) -> None:
    context, _ = random_context()
    words = torch.tensor([5, 3])
    made = tokens_of(predict_by("vllm", run, context, None, 6, 1, GREEDY, server.url, words))
    assert len(server.requests) == 6
    assert all(request["prompt"][:2] == [5, 3] for request in server.requests)
    assert torch.equal(made, tokens_of(predict(run, context, None, 6, 1, GREEDY, prompt=words)))
    assert not torch.equal(made, tokens_of(predict(run, context, None, 6, 1, GREEDY)))
