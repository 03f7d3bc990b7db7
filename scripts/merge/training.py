"""An arm and a seed → a run; and the learning rate of each arm, chosen on a seed that is not reported."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from language import save_language_model, text_loss

from framepred.config.recipe import apply_settings
from framepred.errors import FramepredError
from framepred.llm.token_names import TOKENIZER_JSON, text_ids, text_tokenizer
from framepred.predictor.llama import Llama
from framepred.training.pipeline import Job
from framepred.training.windows import step_generator
from framepred.world.device import choose_device
from framepred.world.run import load_run
from merge.arms import ARMS, Arm
from merge.data import cached
from merge.setup import Setup, run_training, seconds_of_steps

UNREPORTED = 1000
"""The seed on which learning rates are chosen."""


@dataclass(frozen=True)
class Training:
    """A training to make: an arm, a seed, which of its candidates, where it goes, and how many steps it takes."""

    arm: Arm
    seed: int
    candidate: int
    out: Path
    steps: int
    start: Path | None = None
    """The run that it goes on from, where it goes on from another arm."""


def job_of(setup: Setup, training: Training) -> Job:
    """Return what `framepred train` is given for a training: the one way in for all arms."""
    arm = training.arm
    plan = [*arm.settings, *arm.candidates[training.candidate]]
    plan += [f"training.seed={training.seed}", f"training.predictor_steps={training.steps}", "training.minutes=0"]
    init = {"llm": str(setup.llm.path), "new": None}.get(arm.start, str(training.start))
    if arm.start == "random":
        init = str(random_model(setup, training.seed))
    if arm.start == "new":
        plan = [*shape_of(setup.llm.predictor), *plan]
    texts = [str(setup.out / "text" / "train")] if arm.texts else []
    recipe = apply_settings(setup.recipe, plan)
    store = str(setup.stores / arm.store)
    return Job([store], training.out, recipe, str(setup.tokenizer), "predictor", init, texts=texts)


def random_model(setup: Setup, seed: int) -> Path:
    """Return a language model of the LLM's shape and text tokenizer, its weights drawn by the seed."""
    folder = setup.out / "random-llm" / str(seed)
    if not (folder / "model.safetensors").is_file():
        model = Llama(setup.llm.predictor.config)
        model.initialise(step_generator(seed, 5))
        save_language_model(replace(setup.llm, predictor=model), folder)
    return folder


def shape_of(model: Llama) -> list[str]:
    """Return the settings of a predictor of a Llama's shape."""
    config = model.config
    shape = {
        "width": config.hidden_size, "layers": config.num_hidden_layers, "mlp_width": config.intermediate_size,
        "heads": config.num_attention_heads, "kv_heads": config.num_key_value_heads,
    }  # fmt: skip
    return [f"predictor.{name}={value}" for name, value in shape.items()]


def choose_steps(setup: Setup) -> Setup:
    """Set the steps of a training: those asked for, or as many of the first arm's as take the minutes here."""

    def measure() -> dict[str, Any]:
        job = job_of(setup, Training(ARMS[0], UNREPORTED, 0, setup.out, 1_000_000))
        (seconds,) = seconds_of_steps([job])
        return {"steps": max(4, round(setup.request.minutes * 60 / seconds))}

    if setup.request.steps:
        return setup
    return replace(setup, steps=cached(setup.out / "steps.json", measure)["steps"])


def steps_of(setup: Setup, arm: Arm, candidate: int, steps: int) -> int:
    """Return the steps of an arm where the first arm makes `steps`: its part, or as many as take the same time."""
    if not arm.timed:
        return max(1, round(arm.part * steps))

    def measure() -> dict[str, float]:
        trainings = [Training(ARMS[0], UNREPORTED, 0, setup.out, 1_000_000),
                     Training(arm, UNREPORTED, candidate, setup.out, 1_000_000)]  # fmt: skip
        first, own = seconds_of_steps([job_of(setup, training) for training in trainings])
        return {"steps_in_the_time_of_one": first / own}

    file = setup.out / "tuning" / f"{arm.name}-{candidate}.pace.json"
    return max(1, round(steps * cached(file, measure)["steps_in_the_time_of_one"]))


def loss_of(setup: Setup, arm: Arm, run: Path) -> float:
    """Return what an arm's candidates are judged by: the losses of what it learns, on what no arm is measured on."""
    values = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    if "text_loss" in arm.judged:
        loaded = load_run(run, choose_device("auto"))
        words = text_tokenizer(setup.llm.files[TOKENIZER_JSON])
        ids = torch.tensor([id for text in setup.read("developed") for id in text_ids(words, text)][:8192])
        size = loaded.layout.vocabulary.text_size
        values["text_loss"] = text_loss(loaded.predictor, ids, size, min(128, len(ids)))
    if missing := [name for name in arm.judged if name not in values]:
        raise FramepredError(f"{run} has no {missing[0]}: give --data whose every part has more captioned episodes")
    return float(sum(values[name] for name in arm.judged))


def tune(setup: Setup, arm: Arm) -> int:
    """Return which of an arm's candidates is best on the unreported seed.

    Its trainings are shorter than those that are reported; of the others no weights are kept. An arm that it goes on
    from must have been tuned before.
    """
    folder, chosen = setup.out / "tuning", tuned(setup)
    start = folder / f"{arm.start}-{chosen[arm.start]['candidate']}" if arm.start in chosen else None

    def judge() -> dict[str, Any]:
        losses = []
        for candidate in range(len(arm.candidates)):
            steps = steps_of(setup, arm, candidate, max(4, round(setup.request.size.tuning * setup.steps)))
            out = folder / f"{arm.name}-{candidate}"

            def train_and_judge(out: Path = out, candidate: int = candidate, steps: int = steps) -> dict[str, float]:
                run_training(job_of(setup, Training(arm, UNREPORTED, candidate, out, steps, start)))
                return {"steps": steps, "loss": loss_of(setup, arm, out)}

            losses.append(cached(out / "judged.json", train_and_judge))
        best = min(range(len(losses)), key=lambda i: losses[i]["loss"])
        return {"candidate": best, "settings": list(arm.candidates[best]), "tried": losses}

    best: int = cached(folder / f"{arm.name}.json", judge)["candidate"]
    started_from = {other.start for other in ARMS}
    for candidate in range(len(arm.candidates)):
        if candidate != best or arm.name not in started_from:
            (folder / f"{arm.name}-{candidate}" / "model.safetensors").unlink(missing_ok=True)
    return best


def train_arm(setup: Setup, arm: Arm, seed: int, candidate: int) -> Training:
    """Train an arm of a seed, unless it is done; return the training."""
    folder = setup.out / f"seed-{seed}"
    names = {other.name for other in ARMS}
    start = folder / arm.start if arm.start in names else None
    training = Training(
        arm, seed, candidate, folder / arm.name, steps_of(setup, arm, candidate, setup.steps), start
    )  # fmt: skip
    run_training(job_of(setup, training))
    return training


def tuned(setup: Setup) -> dict[str, Any]:
    """Return what was chosen so far, by the arms' names."""
    files = {arm.name: setup.out / "tuning" / f"{arm.name}.json" for arm in ARMS}
    return {name: json.loads(file.read_text()) for name, file in files.items() if file.is_file()}
