"""The page of the merge: what was run, an answer and a figure each question, and what is not shown; tables as JSON."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from framepred.evaluation.plots import COLOURS, make_figure, to_svg
from framepred.io.atomic import write_text
from merge.answers import Answer, Runs, answers, scores_of, sentence, to_row
from merge.arms import ARMS
from merge.proof import MERGED
from merge.questions import BEFORE, MEASURES, QUESTIONS, Question, table
from merge.statistics import estimate


def write_page(
    out: Path, about: Mapping[str, Any], runs: Runs, tuned: Mapping[str, Any], proof: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Write OUT/merge.md and its figures; return what OUT/merge.json is to hold. `proof` is of `proof.prove`."""
    made = {question.name: answers(runs, question) for question in QUESTIONS}
    results = {
        "about": dict(about), "arms": arm_table(runs), "tuned": dict(tuned),
        "questions": {name: [to_row(one) for one in rows] for name, rows in made.items()}, "proof": proof,
    }  # fmt: skip
    lines = ["# The merge", "", *introduction(about, runs), ""]
    for question in QUESTIONS:
        lines += section(question, made[question.name])
        if made[question.name]:
            write_text(out / f"{question.name}.svg", figure(made[question.name]))
    tables = [*arms_section(results["arms"]), "", *tuned_section(tuned), ""] if results["arms"] else []
    lines += [*proof_section(proof), "", *tables, *how(about)]
    write_text(out / "merge.md", "\n".join(lines).rstrip() + "\n")
    return results


def introduction(about: Mapping[str, Any], runs: Runs) -> list[str]:
    """Say what was run and what is missing."""
    seeds = {name: len(found) for name, found in runs.items() if name != BEFORE}
    most = max(seeds.values(), default=0)
    lacking = [arm.name for arm in ARMS if not seeds.get(arm.name)]
    fewer = [f"{name} {count}" for name, count in seeds.items() if 0 < count < most]
    lines = [
        f"Does a language model help to predict video, and what does video do to its words? Size `{about['size']}`, "
        f"{most} of 3 seeds, {about['steps']} steps a training, {about['machine']}, {about['date']}.",
        "What was asked, and what would decide it, was written before: [questions](questions.md). How sharpness and "
        "motion count was decided after the first data was seen, as it says there.",
    ]
    if not most:
        lines.append(
            "**No arm was trained and measured yet: nothing is answered.** The same command goes on from here."
        )
    elif most < 3:
        lines.append(
            f"**{3 - most} of the 3 seeds are missing: with one seed nothing is decided, with two little.** The same "
            f"command with `--seeds 0,1,2` goes on from here."
        )
    if fewer:
        lines.append(f"Of fewer seeds: {', '.join(fewer)}.")
    if lacking:
        lines.append(f"Not run: {', '.join(lacking)}.")
    if about["size"] == "tiny":
        lines.append("This size is for a part of one core: enough to see that all of it works, not to decide anything.")
    if about["size"] != "135m":
        lines.append("Nothing is claimed of another size than this one; the 135M model was not run.")
    return [part for line in lines for part in (line, "")][:-1]


def section(question: Question, made: Sequence[Answer]) -> list[str]:
    """Return a question's part of the page."""
    headers = [
        "ours", "theirs", "measure", "ours", "theirs", "difference", "95% over items", "over seeds", "decided", "items",
        "needed",
    ]  # fmt: skip
    rows = [row(one) for one in made]
    picture = [f"![{question.name}]({question.name}.svg)", ""] if made else []
    return [
        f"## {question.asks}", "", sentence(question, made), "", f"The bet loses if: {question.loses}", "", *picture,
        *([*table(headers, rows), ""] if rows else []), f"Not shown: {question.not_shown}", "",
    ]  # fmt: skip


def row(one: Answer) -> list[str]:
    """Return a comparison as cells of a table."""
    d, asked = one.difference, one.asked
    return [
        asked.ours, asked.theirs, asked.measure + (f" / {asked.against}" if asked.against else ""),
        f"{one.ours.value:.4g}", f"{one.theirs.value:.4g}", f"{d.value:+.3g}", between(d.items),
        between(d.seeds) if d.seeds else "-", one.verdict, str(d.count),
        "-" if one.count_needed is None else str(one.count_needed),
    ]  # fmt: skip


def between(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:+.3g} to {bounds[1]:+.3g}"


def figure(made: Sequence[Answer]) -> str:
    """Draw comparisons as differences in units of the smallest effect that matters, better to the right."""
    drawing, axes = make_figure(7.0, 1.2 + 0.34 * len(made))
    for place, one in enumerate(reversed(made)):
        scale = one.measure.better / one.measure.matters
        value = scale * one.difference.value
        for bounds, width, label in ((one.difference.items, 5, "items"), (one.difference.seeds, 1.4, "seeds")):
            if bounds:
                low, high = sorted(scale * bound for bound in bounds)
                colour = COLOURS["copy_last" if label == "items" else "model"]
                axes.plot([low, high], [place, place], color=colour, linewidth=width, alpha=0.7)
        axes.plot(value, place, "o", color="#222", markersize=4)
    names = [f"{a.asked.ours} / {a.asked.theirs}: {a.asked.measure}" for a in reversed(made)]
    axes.set_yticks(range(len(made)), names, fontsize=7)
    for line in (-1, 0, 1):
        axes.axvline(line, color="#444", linewidth=1, linestyle="-" if line == 0 else "--")
    axes.set_xlabel(
        "difference, in smallest effects that matter; better to the right (thick: items, thin: seeds)", fontsize=7
    )
    return to_svg(drawing)


def proof_section(proof: Mapping[str, Any] | None) -> list[str]:
    """Say what llama.cpp made of the merged run's GGUF."""
    if proof is None:
        said = f"Not run: {MERGED} was not trained yet."
    elif "missing" in proof:
        said = f"Not run: {proof['missing']}."
    else:
        same = "as framepred" if proof["caption"] == proof["own_caption"] else f"framepred: “{proof['own_caption']}”"
        said = (
            f"llama.cpp reads the GGUF of {MERGED}. Behind {proof['frames']} frames of {proof['episode']} it says "
            f"“{proof['caption']}” ({same}), and {proof['equal_tokens']} of the next frame's {proof['tokens']} tokens "
            "are framepred's, drawn greedily."
        )
    return ["## One model", "", said]


def arm_table(runs: Runs) -> dict[str, dict[str, Any]]:
    """Return each arm's measures, means over seeds with intervals, and what its trainings drew."""
    found: dict[str, dict[str, Any]] = {}
    for name, by_seed in runs.items():
        if scores := list(by_seed.values()):
            common = [key for key in scores[0]["scores"] if all(key in one["scores"] for one in scores)]
            means = {key: estimate([*scores_of(runs, name, key).values()]) for key in common}
            means |= {
                key: estimate([*scores_of(runs, name, key).values()], distance_to_1=True)
                for key, measure in MEASURES.items() if measure.ratio in common
            }  # fmt: skip
            found[name] = {
                "seeds": len(scores), "drew": [one.get("account") for one in scores],
                "measures": {
                    key: {"value": e.value, "items": list(e.items), "seeds": list(e.seeds) if e.seeds else None}
                    for key, e in means.items()
                },
            }  # fmt: skip
    return found


_SHOWN = ("bits", "bits-bare", "psnr", "sharpness", "sharpness-error", "motion", "motion-error", "text", "cloze",
          "fact-action", "fact-action-unseen", "fact-event", "fact-event-unseen", "bits-new", "fact-action-new",
          "fact-event-new")  # fmt: skip


def arms_section(arms: Mapping[str, Any]) -> list[str]:
    """Return the table of all arms: means, and the half width of their 95% intervals over items."""
    rows = []
    for name, found in arms.items():
        cells = []
        for key in _SHOWN:
            value = found["measures"].get(key)
            half = (value["items"][1] - value["items"][0]) / 2 if value else 0.0
            cells.append(f"{value['value']:.3g} ±{half:.2g}" if value else "-")
        drew = [d for d in found["drew"] if d]
        seen = [f"{fmean(d[k] for d in drew):.0f}" if drew else "-" for k in ("steps", "frame_ids", "text_ids")]
        rows.append([name, *seen, *cells])
    copied = next((a["measures"] for a in arms.values() if "psnr-copied" in a["measures"]), {})
    beside = "; ".join(
        f"{words} {copied[f'psnr-{row}']['value']:.2f} dB" for row, words in
        (("copied", "copying the last frame"), ("ceiling", "what the tokenizer gives back at best"))
        if f"psnr-{row}" in copied
    )  # fmt: skip
    return [
        "## All arms", "", "Means over seeds ± half of the 95% interval over clips, files, sentences or captions.",
        "Sharpness and motion are ratios to the truth; their errors are how far from 1 these are.",
        *([f"PSNR beside: {beside}."] if beside else []), "",
        *table(["arm", "steps", "frame ids", "text ids", *_SHOWN], rows),
    ]  # fmt: skip


def tuned_section(tuned: Mapping[str, Any]) -> list[str]:
    """Return the settings that each arm has, which were chosen on an unreported seed."""
    rows = [
        [name, ", ".join(found["settings"]), ", ".join(f"{one['loss']:.3f}" for one in found["tried"])]
        for name, found in tuned.items()
    ]
    head = "Chosen on a seed that is not reported, by losses on episodes and texts that no arm is measured on."
    return ["## Learning rates", "", head, "", *table(["arm", "chosen", "losses of those tried"], rows)]


def how(about: Mapping[str, Any]) -> list[str]:
    """Say how it was made."""
    text = about["texts"]
    read, developed, held = (text[part]["files"] for part in ("train", "developed", "held-out"))
    return [
        "## How", "", "```bash", about["command"], "```", "",
        f"- The language model: {about['llm']}, {about['cut']}.",
        "- The arms are rows of `scripts/merge/arms.py`; one code path trains and measures all. `merge.json` holds",
        "  the hash of the windows that each drew, and how many ids.",
        f"- Texts: {', '.join(text['sources'])}; {read} files read, {developed} to choose learning rates,",
        f"  {held} measured. Sentences to end: {about['cloze']}.",
        "- A fact is right where the true caption is likelier behind its frames than with any other fact of its kind;",
        "  *unseen*: the same behind the frames of another caption. Actions are not given. Each fact counts alike.",
        "- *needed*: items for the smallest effect that matters, by the spread found (decided after seeing data).",
        "- On a GPU, in pieces of ten minutes until it ends: `timeout -s INT 10m scripts/reproduce_merge -o OUT --llm",
        "  SmolLM2.gguf --size 135m`. Each piece goes on where the last one stopped, and writes the page anew.",
        "- Before the questions were written there was [a first look](first-look.md), of one seed; it decides nothing.",
    ]  # fmt: skip
