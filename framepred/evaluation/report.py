"""The result as one self-contained HTML page: tables, curves, filmstrips, and clips to play."""

import base64
import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from framepred.evaluation.benchmark import Evaluated, selected_clips
from framepred.evaluation.clips import EvalClip
from framepred.evaluation.futures import Scorer, action_variants, encode_variants, make_futures, own_row
from framepred.evaluation.plots import groups_plot, horizon_curves, rank_plot
from framepred.evaluation.tables import (
    LOOK,
    NEARNESS,
    ROW_NAMES,
    answer,
    counterfactual_table,
    group_table,
    groups_table,
    header_facts,
    known_sentence,
    notes,
    spread_sentence,
    verdict,
)
from framepred.evaluation.terms import COLUMNS, ROWS, WORDS
from framepred.io.atomic import write_text
from framepred.io.progress import Progress
from framepred.video.panels import draw_filmstrip, draw_moments
from framepred.video.write import write_video

_SHOWN = 2
_CURVES = (
    ("motion_psnr", "PSNR where it moves (dB)"), ("psnr", "PSNR (dB)"), ("ssim", "SSIM"), ("lpips", "LPIPS"),
    ("sharpness", "sharpness, truth is 1"), ("motion_ratio", "motion, truth is 1"),
    ("bits", "bits a frame, teacher-forced"), ("accuracy", "token accuracy, teacher-forced"),
)  # fmt: skip


@dataclass(frozen=True)
class _Figure:
    """A clip as it is shown: filmstrip and video are data URIs."""

    clip: str
    caption: str
    strip: str
    video: str


def write_report(evaluated: Evaluated, path: Path) -> Iterator[Progress]:
    """Write the page, yielding after each clip that it shows: predicted again, which gives the same frames."""
    result = evaluated.result
    wanted = [_selection(facts["order"]) for facts in result["groups"]]
    total, done = sum(map(len, wanted)), 0
    sections = []
    for facts, group, chosen in zip(result["groups"], evaluated.groups, wanted, strict=True):
        figures: dict[str, _Figure] = {}
        for clip in selected_clips(group, evaluated.scorer, chosen.keys()):
            figures[clip.name] = _figure(evaluated.scorer, clip, chosen[clip.name])
            done += 1
            yield Progress(done, total, clip.name)
            if len(figures) == len(chosen):
                break
        sections.append(_section(facts, result["protocol"], [figures[name] for name in chosen if name in figures]))
    write_text(path, _page(result, sections))


def _selection(order: list[dict[str, Any]]) -> dict[str, str]:
    """Return the clips to show, with captions: the best, one in the middle, the worst."""
    count = len(order)
    places = dict.fromkeys(range(min(_SHOWN, (count + 1) // 2)), "best")
    if count > 2 * _SHOWN:
        places[count // 2] = "middle"
    places |= dict.fromkeys(range(max(count - _SHOWN, (count + 1) // 2), count), "worst")
    return {
        order[i]["clip"]: f"{places[i]}: {order[i]['clip']}, where it moves model {order[i]['model']:.2f} dB, "
        f"copying {order[i]['copy_last']:.2f} dB"
        for i in sorted(places)
    }


def _figure(scorer: Scorer, clip: EvalClip, caption: str) -> _Figure:
    run, protocol = scorer.run, scorer.protocol
    variants = action_variants(run, clip, None, protocol.context)
    own = own_row(variants)
    variants = {own: variants[own]}
    futures = make_futures(scorer, clip, variants, encode_variants(run, clip, variants))
    rows = {
        "truth": futures.future, "prediction": futures.frames[own][0], "ceiling": futures.frames["ceiling"][0],
        "copy last": futures.frames["copy_last"][0],
    }  # fmt: skip
    if "nearest_training" in futures.frames:
        rows["nearest training"] = futures.frames["nearest_training"][0]
    context = futures.truth[: protocol.context]
    strip = _data_uri(_png(draw_filmstrip(context, rows)), "image/png")
    video = _data_uri(_mp4(list(draw_moments(context, rows)), clip.fps), "video/mp4")
    return _Figure(clip.name, caption, strip, video)


def _png(picture: Tensor) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _mp4(pictures: list[Tensor], fps: float) -> bytes:
    # Slower than it was, and the last frame held: a clip takes a second, and its end is the longest horizon.
    slow = min(max(fps, 1.0), 5.0)
    held = torch.stack([*pictures, *[pictures[-1]] * round(slow)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_video(path, held, slow)
        return path.read_bytes()


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _section(facts: dict[str, Any], protocol: dict[str, Any], figures: list[_Figure]) -> dict[str, Any]:
    """Return what the page shows of a group; plots are SVG text."""
    near, look = group_table(facts, NEARNESS), group_table(facts, LOOK)
    plots = [horizon_curves(facts["rows"], ROW_NAMES, metric, label) for metric, label in _CURVES]
    spread = facts["spread"]
    return {
        "name": facts["name"],
        "clips": facts["clips"],
        "answer": answer(facts, protocol),
        "known": known_sentence(facts),
        "verdict": verdict(facts),
        "tables": [part for part in (near, look) if part[1]],
        "notes": notes(facts),
        "curves": [plot for plot in plots if plot],
        "ranks": rank_plot(spread["ranks"]) if spread else None,
        "spread": spread_sentence(spread) if spread else None,
        "counterfactual": counterfactual_table(facts["counterfactual"]) if "counterfactual" in facts else None,
        "figures": figures,
    }


def _page(result: dict[str, Any], sections: list[dict[str, Any]]) -> str:
    from jinja2 import Environment, StrictUndefined

    across = None
    if len(result["groups"]) > 1:
        headers, rows = groups_table(result)
        plot = groups_plot(result["groups"], ROW_NAMES, "motion_psnr", "PSNR where it moves (dB)")
        across = {"headers": headers, "rows": rows, "plot": plot}
    text = (resources.files("framepred.evaluation") / "report.html").read_text(encoding="utf-8")
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(text)
    parts = [part for section in sections for part in section["tables"]]
    shown = {label for headers, rows in parts for label in [*headers, *(row[0] for row in rows)]}
    words = [(label, meaning) for label, meaning in (COLUMNS | ROWS).items() if label in shown] + list(WORDS.items())
    return page.render(
        protocol=result["protocol"], header=header_facts(result), across=across, groups=sections, words=words
    )
