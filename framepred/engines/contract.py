"""Other engines that run a run's Llama: transformers, llama.cpp, a vLLM server.

They draw the tokens; windows, actions and frames are framepred's. Greedy (temperature 0 or top-k 1), they give the
frames that framepred gives. With a temperature they draw from the same probabilities by their own random
numbers: a seed repeats itself in one engine, but does not carry over to another.
"""

import json
import random
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from framepred.decoding.sampling import Sampling
from framepred.errors import FramepredError
from framepred.io.compat import ensure_torchvision
from framepred.llm.token_names import read_text_tokenizer, tokenizer_json
from framepred.predictor import gguf as gguf_file
from framepred.predictor.huggingface import to_hugging_face
from framepred.world.rollout import Prediction, check_lengths, predict
from framepred.world.run import Run

Complete = Callable[[list[int], int, tuple[int, int], int], list[int]]
"""(ids so far, how many to make, half-open range of legal ids, seed) → ids; the seed is the engine's own."""

SERVER = "http://localhost:8000"


def transformers_engine(run: Run, sampling: Sampling, server: str | None) -> Complete:
    """Run the Llama as `LlamaForCausalLM.generate`; the ids that two calls share at their beginning are read once."""
    ensure_torchvision()
    try:
        import transformers
    except ImportError as error:
        raise _not_installed("transformers", error) from error
    transformers.utils.logging.set_verbosity_error()
    config = run.predictor.config
    device = run.predictor.embed.weight.device
    with torch.random.fork_rng():
        model: Any = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config.to_json()))
    model.load_state_dict(to_hugging_face(run.predictor.state_dict(), config), strict=False)
    model = model.to(device, torch.float32).eval()
    draw: dict[str, Any] = {"do_sample": False}
    if not sampling.greedy:
        draw = {"do_sample": True} | {k: getattr(sampling, k) for k in ("temperature", "top_k", "top_p")}
    cache, cached = transformers.DynamicCache(), list[int]()

    def complete(ids: list[int], count: int, legal: tuple[int, int], seed: int) -> list[int]:
        nonlocal cached
        shared = next((i for i, (a, b) in enumerate(zip(ids, cached, strict=False)) if a != b), len(cached))
        # The last id is always read again: its logits are needed.
        if stale := len(cached) - min(shared, len(ids) - 1):
            cache.crop(-stale)
        prompt = torch.tensor([ids], device=device)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            made = model.generate(
                prompt, attention_mask=torch.ones_like(prompt), past_key_values=cache, max_new_tokens=count,
                suppress_tokens=_illegal(config.vocab_size, legal) or None, pad_token_id=legal[0], **draw,
            )[0].tolist()  # fmt: skip
        cached = made[:-1]
        return made[len(ids) :]

    return complete


def llama_cpp_engine(run: Run, sampling: Sampling, server: str | None) -> Complete:
    """Run the Llama in llama.cpp from the run's model.gguf, or from a temporary one in fp32."""
    try:
        import xllamacpp
    except ImportError as error:
        raise _not_installed("xllamacpp", error) from error
    config = run.predictor.config
    file, folder = run.path / gguf_file.NAME, None
    if not file.is_file():
        folder = tempfile.TemporaryDirectory(prefix="framepred-")
        file = Path(folder.name) / gguf_file.NAME
        vocabulary = run.layout.vocabulary
        names = tokenizer_json(vocabulary, read_text_tokenizer(run.path, vocabulary))
        weights = to_hugging_face(run.predictor.state_dict(), config)
        gguf_file.write_gguf(file, weights, config.to_json(), names)
    settings = xllamacpp.CommonParams()
    settings.model.path = str(file)
    settings.n_ctx = config.max_position_embeddings
    settings.n_parallel = 1
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = torch.get_num_threads()
    # Half-precision keys and values, its default, sometimes give other tokens.
    settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    settings.fit_params = settings.warmup = settings.use_jinja = False
    settings.cache_ram_mib = 0
    settings.verbosity = -1
    try:
        llama = xllamacpp.Server(settings)
    except (RuntimeError, ValueError) as error:
        raise FramepredError(f"llama.cpp cannot load {file} ({error}): export the run again") from error

    def complete(ids: list[int], count: int, legal: tuple[int, int], seed: int) -> list[int]:
        # Referring to the folder keeps it on disk as long as the engine lives.
        assert folder is None or Path(folder.name).is_dir()
        answer = llama.handle_completions(
            {
                "prompt": ids, "max_tokens": count, "seed": seed, "cache_prompt": True, "ignore_eos": True,
                "logit_bias": [[id, False] for id in _illegal(config.vocab_size, legal)], "logprobs": 1,
                "temperature": 0.0 if sampling.greedy else sampling.temperature,
                "top_k": sampling.top_k, "top_p": sampling.top_p,
                "samplers": ["temperature", "top_k", "top_p"],
            }
        )  # fmt: skip
        try:
            return [token["id"] for token in answer["choices"][0]["logprobs"]["content"]]
        except (KeyError, IndexError, TypeError) as error:
            raise FramepredError(f"llama.cpp answers {str(answer)[:200]}: is {file} this run's?") from error

    return complete


def vllm_engine(run: Run, sampling: Sampling, server: str | None) -> Complete:
    """Ask a vLLM server that serves the run's `--format hf` export, by its OpenAI-compatible completions."""
    base = (server or SERVER).rstrip("/").removesuffix("/v1")
    models = _ask(f"{base}/v1/models", None)
    try:
        model = models["data"][0]["id"]
    except (KeyError, IndexError, TypeError) as error:
        raise _nonsense(base, models) from error

    def complete(ids: list[int], count: int, legal: tuple[int, int], seed: int) -> list[int]:
        answer = _ask(f"{base}/v1/completions", completion_request(model, sampling, ids, count, legal, seed))
        try:
            return [int(id) for id in answer["choices"][0]["token_ids"]]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise _nonsense(base, answer) from error

    return complete


def completion_request(
    model: str, sampling: Sampling, ids: list[int], count: int, legal: tuple[int, int], seed: int
) -> dict[str, Any]:
    """Return the body of a vLLM completion request: token-id prompt, legal ids only, token ids back."""
    return {
        "model": model,
        "prompt": ids,
        "max_tokens": count,
        "min_tokens": count,
        "ignore_eos": True,
        "allowed_token_ids": list(range(*legal)),
        "return_token_ids": True,
        "temperature": 0.0 if sampling.greedy else sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "seed": seed,
    }


ENGINES: dict[str, Callable[[Run, Sampling, str | None], Complete]] = {
    "transformers": transformers_engine,
    "llama.cpp": llama_cpp_engine,
    "vllm": vllm_engine,
}


class CompletionEngine:
    """The engine of a session whose ids another program generates: one request for each sample's frame."""

    def __init__(self, name: str, run: Run, complete: Complete, seed: int) -> None:
        self._name, self._run, self._complete, self._seed = name, run, complete, seed
        self.passes = 0

    def frame(self, past: Tensor, frame: int, guess: Tensor) -> Tensor:
        layout, rows = self._run.layout, []
        for sample, ids in enumerate(past.expand(len(guess), -1).tolist()):
            # A seed that fits the 32 bits of every engine.
            seed = random.Random(f"{self._seed} {sample} {frame}").getrandbits(31)
            made: list[int] = []
            # Where cells have ids of their own, what is legal changes with every token: each is a request.
            count = 1 if layout.cells else layout.frame_tokens
            for slot in range(0, layout.frame_tokens, count):
                made += self._legal_ids(
                    ids + made, count, layout.legal(layout.context_tokens + slot), (seed + slot) % 2**31
                )
            rows.append(made)
        self.passes += len(rows) * layout.frame_tokens
        return torch.tensor(rows, device=guess.device) - layout.offsets(guess.device)

    def _legal_ids(self, ids: list[int], count: int, legal: tuple[int, int], seed: int) -> list[int]:
        made = self._complete(ids, count, legal, seed)
        if len(made) != count or not all(legal[0] <= id < legal[1] for id in made):
            raise FramepredError(
                f"engine {self._name} gave {len(made)} ids {str(made)[:60]}, not {count} from {legal[0]} to "
                f"{legal[1] - 1}: it runs another model than {self._run.path}"
            )
        return made

    def text(self, past: Tensor, most: int) -> Tensor:
        raise self._frames_alone()

    def score(self, past: Tensor, new: Tensor, legal: tuple[int, int]) -> Tensor:
        raise self._frames_alone()

    def fork(self, rows: Tensor) -> "CompletionEngine":
        return CompletionEngine(self._name, self._run, self._complete, self._seed)

    def _frames_alone(self) -> FramepredError:
        return FramepredError(f"the engine {self._name} draws frames alone: use framepred's own")


def predict_by(
    name: str, run: Run, tokens: Tensor, actions: Tensor | None, horizon: int, samples: int = 1,
    sampling: Sampling | None = None, server: str | None = None, prompt: Tensor | None = None,
    first: Tensor | None = None,
) -> Iterator[Prediction]:  # fmt: skip
    """Predict as `rollout.predict` does, each frame's tokens drawn by the engine `name`.

    `server` is the address of a vLLM server. Raises FramepredError for an unknown engine, one that is
    not installed or reached, and for an answer that is no frame.
    """
    check_lengths(len(tokens), horizon, samples)
    if name not in ENGINES:
        raise FramepredError(f"engine {name!r} is not known; give one of framepred, {', '.join(ENGINES)}")
    sampling = sampling or Sampling()
    engine = CompletionEngine(name, run, ENGINES[name](run, sampling, server), sampling.seed)
    yield from predict(run, tokens, actions, horizon, samples, sampling, prompt=prompt, engine=engine, first=first)


def _illegal(vocab_size: int, legal: tuple[int, int]) -> list[int]:
    return [*range(legal[0]), *range(legal[1], vocab_size)]


def _not_installed(package: str, error: ImportError) -> FramepredError:
    return FramepredError(f"this engine needs {package} ({error}): pip install 'framepred[engines]'")


def _ask(url: str, body: dict[str, Any] | None) -> Any:
    """GET, or POST a JSON body; return the JSON answer."""
    data = None if body is None else json.dumps(body).encode()
    try:
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=600) as answer:
            text = answer.read()
    except urllib.error.HTTPError as error:
        reason = " ".join(error.read(400).decode(errors="replace").split())
        raise FramepredError(
            f"server {url} refuses ({error.code} {reason}): it must be vLLM, serving this run's export"
        ) from error
    except (OSError, ValueError) as error:
        raise FramepredError(
            f"server {url} cannot be reached ({getattr(error, 'reason', error)}): "
            "start `vllm serve DIR` on the run's `framepred export --format hf`, or give its address as --server"
        ) from error
    try:
        return json.loads(text)
    except ValueError as error:
        raise _nonsense(url, text[:200].decode(errors="replace")) from error


def _nonsense(where: str, answer: Any) -> FramepredError:
    shown = " ".join(str(answer).split())[:160]
    return FramepredError(f"server {where} answers {shown!r}, which is no completion with token_ids: give vLLM's")
