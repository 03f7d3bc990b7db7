"""What all trainings of an experiment share, made once: data, tokenizer, the language model cut to its size, steps."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from documents import documents
from language import save_language_model, text_part, with_first_words

from framepred.cli.console import consume, duration, say
from framepred.config.recipe import Recipe, apply_settings
from framepred.io import zoo
from framepred.llm.model import LanguageModel, find_checkpoint, load_language_model
from framepred.sources.captions_csv import find_texts, read_text
from framepred.training.loop import TrainProgress
from framepred.training.pipeline import Job, train
from framepred.training.start import Start
from framepred.world.device import choose_device
from framepred.world.run import load_run
from merge.arms import COMMON, Size
from merge.data import cached, make_stores, record_games, split_texts

HEALING = 3
"""How much longer than any other training a cut language model reads text, before all else."""

TOKENIZER = 4
"""How much longer than a training of video the tokenizer trains."""


@dataclass(frozen=True)
class Request:
    """What the command was asked for; `llm` is a GGUF file or a checkpoint folder, `data` as `record_games` makes."""

    out: Path
    size: Size
    llm: str
    texts: tuple[str, ...]
    cloze: tuple[str, ...]
    data: Path | None
    tokenizer: str | None
    minutes: float
    steps: int | None
    settings: tuple[str, ...]

    @property
    def recipe(self) -> Recipe:
        return apply_settings(Recipe(), [*COMMON, *self.size.settings, *self.settings])


@dataclass(frozen=True)
class Setup:
    """What every training and measuring is given."""

    request: Request
    recipe: Recipe
    data: Path
    stores: Path
    tokenizer: Path
    llm: LanguageModel
    texts: dict[str, Any]
    steps: int

    @property
    def out(self) -> Path:
        return self.request.out

    def read(self, part: str) -> list[str]:
        """Return the texts of a part, in order."""
        return [read_text(file) for file in find_texts([self.out / "text" / part])]

    def cloze_texts(self) -> list[str]:
        """Return the texts whose sentences lose their last words: those that were given, or the held-out ones."""
        given = self.request.cloze
        return [text for _, text in documents(given)] if given else self.read("held-out")


def run_training(job: Job) -> None:
    """Train a run unless it is finished, going on where it was begun."""
    done = job.out / "tokenizer" if job.only == "tokenizer" else job.out
    if not (done / "model.safetensors").is_file():
        say(f"{job.out}: training")

        def describe(p: Any) -> tuple[float, str]:
            if isinstance(p, Start):
                return 0.0, "starting"
            if not isinstance(p, TrainProgress):
                return p.done / p.total, f"{job.out.name}: {p.done} of {p.total} videos"
            return p.fraction, f"{job.out.name} step {p.step} loss {p.loss:.3f}, {duration(p.remaining)} left"

        consume(train(replace(job, resume=(job.out / "recipe.toml").is_file())), describe)
    for state in job.out.glob("resume-*.safetensors"):
        state.unlink()


def prepare(request: Request) -> Setup:
    """Make what all trainings share, or find it where it was made."""
    out, size, recipe = request.out, request.size, request.recipe
    data = request.data or out / "data"
    if request.data is None:
        record_games(data, size.episodes, -(-size.clips // 3))
    texts = cached(out / "texts.json", lambda: split_texts(request.texts, out / "text"))
    if request.tokenizer is None:
        plan = [f"training.minutes={0 if request.steps else TOKENIZER * request.minutes}"]
        run_training(Job([str(data / "train")], out / "tokenizer", apply_settings(recipe, plan), only="tokenizer"))
    tokenizer = zoo.tokenizer_folder(request.tokenizer or str(out / "tokenizer" / "tokenizer"))
    make_stores(data, out / "tokens", tokenizer, choose_device("auto"))
    llm = cut_model(request)
    return Setup(request, recipe, data, out / "tokens", tokenizer, llm, texts, request.steps or 0)


def cut_model(request: Request) -> LanguageModel:
    """Return the language model of the experiment's size, before it has read anything."""
    path, folder = find_checkpoint(request.llm)[0], request.out / "cut-llm"
    if not (request.size.layers or request.size.words):
        return load_language_model(path)
    if not (folder / "model.safetensors").is_file():
        model = load_language_model(path, request.size.layers)
        words = request.size.words
        save_language_model(with_first_words(model, words) if 0 < words < model.text_size else model, folder)
    return load_language_model(folder)


def healed(setup: Setup) -> Setup:
    """Let a cut language model read text alone, so that it knows something again; one that is whole stays as it is."""
    folder = setup.out / "healed"
    if setup.llm.path != setup.out / "cut-llm":
        return setup
    if not (setup.out / "llm" / "model.safetensors").is_file():
        plan = ["text.alone=1.0", "text.captioned=0.0", "predictor.learning_rate=0.001", "llm.learning_rate=0.001"]
        plan.append(f"training.predictor_steps={HEALING * setup.steps}")
        job = Job([str(setup.stores / "train")], folder, apply_settings(setup.recipe, plan), str(setup.tokenizer),
                  "predictor", str(setup.llm.path), texts=[str(setup.out / "text" / "train")])  # fmt: skip
        run_training(job)
        save_language_model(text_part(load_run(folder)), setup.out / "llm")
    return replace(setup, llm=load_language_model(setup.out / "llm"))


def seconds_of_steps(jobs: list[Job], count: int = 12) -> list[float]:
    """Return the seconds that a step of each training takes, the median of `count` made by turns.

    By turns, so that what else the machine does slows all of them alike. Nothing of them is kept.
    """
    with TemporaryDirectory() as folder, ExitStack() as open_ones:
        running = [
            open_ones.enter_context(closing(train(replace(job, out=Path(folder, str(i))))))
            for i, job in enumerate(jobs)
        ]
        for made in running:
            _first_step(made)
        taken: list[list[float]] = [[] for _ in jobs]
        for _ in range(count):
            for made, seconds in zip(running, taken, strict=True):
                began = time.monotonic()
                next(made)
                seconds.append(time.monotonic() - began)
    return [median(seconds) for seconds in taken]


def _first_step(progress: Iterator[Any]) -> None:
    while not isinstance(next(progress), TrainProgress):
        pass
