"""The result as one self-contained HTML page: tables, curves, filmstrips, and clips to play."""

import base64
import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from framepred.evaluation.benchmark import Evaluated, selected_clips
from framepred.evaluation.clips import Group
from framepred.evaluation.futures import Scorer, action_variants, make_futures, own_row
from framepred.evaluation.plots import groups_plot, horizon_curves, rank_plot
from framepred.evaluation.tables import ROW_NAMES, group_table, groups_table, header_facts, spread_sentence, verdict
from framepred.io.atomic import write_text
from framepred.video.panels import draw_filmstrip, draw_moments
from framepred.video.resize import fit_frames
from framepred.video.write import write_video

_SHOWN = 2
_CURVES = (
    ("motion_psnr", "PSNR where it moves (dB)"), ("psnr", "PSNR (dB)"), ("ssim", "SSIM"), ("lpips", "LPIPS"),
    ("bits", "bits a frame, teacher-forced"), ("accuracy", "token accuracy, teacher-forced"),
)  # fmt: skip


@dataclass(frozen=True)
class ReportProgress:
    """How far the report is: clips of `total` drawn."""

    done: int
    total: int
    name: str


def write_report(evaluated: Evaluated, path: Path) -> Iterator[ReportProgress]:
    """Write the page; the clips that it shows are predicted again, which gives the same frames."""
    result, groups = evaluated.result, evaluated.groups
    wanted = [_selection(g["order"]) for g in result["groups"]]
    total, done = sum(map(len, wanted)), 0
    sections = []
    for facts, group, chosen in zip(result["groups"], groups, wanted, strict=True):
        figures: dict[str, str] = {}
        for member, clip in selected_clips(group, evaluated.scorer, list(chosen)):
            figures[clip.name] = _figure(evaluated.scorer, group, member, clip, chosen[clip.name])
            done += 1
            yield ReportProgress(done, total, clip.name)
            if len(figures) == len(chosen):
                break
        sections.append(_group_section(facts, result, "".join(figures[name] for name in chosen if name in figures)))
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


def _figure(scorer: Scorer, group: Group, member: int, clip: Any, caption: str) -> str:
    run, protocol = scorer.run, scorer.protocol
    variants = action_variants(run, clip, None, protocol.context)
    own = own_row(variants)
    tokens = run.tokenizer.encode(fit_frames(clip.frames, run.tokenizer.frame_size)).cpu()
    futures = make_futures(scorer, clip, {own: variants[own]}, tokens)
    rows = {"truth": futures.future, "prediction": futures.frames[own][0], "copy last": futures.frames["copy_last"][0]}
    if "nearest_training" in futures.frames:
        rows["nearest training"] = futures.frames["nearest_training"][0]
    context = futures.truth[: protocol.context]
    strip = _data_uri(_png(draw_filmstrip(context, rows)), "image/png")
    video = _data_uri(_mp4(list(draw_moments(context, rows)), clip.fps), "video/mp4")
    return (
        f"<figure><figcaption>{escape(caption)}</figcaption>"
        f'<img src="{strip}" alt="filmstrip of {escape(clip.name)}">'
        f'<video src="{video}" controls loop muted playsinline preload="auto"></video></figure>'
    )


def _png(picture: Tensor) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _mp4(pictures: list[Tensor], fps: float) -> bytes:
    # Shown slower than it was: a clip is over in a second, and its last moment is what was predicted furthest.
    slow = min(fps, 5.0)
    held = torch.stack([*pictures, *[pictures[-1]] * round(slow)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_video(path, held, slow)
        return path.read_bytes()


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _table(headers: list[str], rows: list[list[str]], notes: dict[int, str] | None = None) -> str:
    head = "".join(f"<th>{escape(h)}</th>" for h in headers)
    body = ""
    for i, row in enumerate(rows):
        kind = ' class="model"' if row[0] == ROW_NAMES["model"] else ""
        if notes and i in notes:
            note = f'<td class="note" colspan="{len(headers) - 1}">{escape(notes[i])}</td>'
            body += f"<tr><td>{escape(row[0])}</td>{note}</tr>"
        else:
            body += f"<tr{kind}>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _group_section(facts: dict[str, Any], result: dict[str, Any], figures: str) -> str:
    headers, rows, notes = group_table(facts)
    plots = [horizon_curves(facts["rows"], ROW_NAMES, metric, label) for metric, label in _CURVES]
    html = f"<h2>{escape(facts['name'])}: {facts['clips']} clips</h2><p>{escape(verdict(facts))}</p>" + _table(
        headers, rows, notes
    )
    html += f"<p class='about'>± is half of the {result['protocol']['confidence']:.0%} interval over clips "
    html += (
        f"(bootstrap, {result['protocol']['bootstrap']} resamplings). Protocol {result['protocol']['sha256'][:12]}.</p>"
    )
    html += '<div class="curves">' + "".join(p for p in plots if p) + "</div>"
    if facts["spread"]:
        html += "<h3>Diversity against error</h3><div class='curves'>" + rank_plot(facts["spread"]["ranks"]) + "</div>"
        html += f"<p>{escape(spread_sentence(facts['spread']))}</p>"
    return html + (f"<h3>Best and worst beside copying</h3>{figures}" if figures else "")


def _page(result: dict[str, Any], sections: list[str]) -> str:
    facts = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in header_facts(result))
    across = ""
    if len(result["groups"]) > 1:
        headers, rows = groups_table(result)
        across = "<h2>Copying or learning?</h2><p>The same model on what it was trained for and on what it was not, "
        across += "beside copying.</p>" + _table(headers, rows)
        across += (
            '<div class="curves">'
            + groups_plot(result["groups"], ROW_NAMES, "motion_psnr", "PSNR where it moves (dB)")
            + "</div>"
        )
    style = (resources.files("framepred.evaluation") / "report.css").read_text()
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>framepred eval</title><style>{style}</style>"
    )
    return (
        f'<!doctype html><html lang="en"><head>{head}</head><body><h1>Is it predicting, or copying?</h1>'
        f"<p class='about'>{escape(result['protocol']['about'])}</p><dl>{facts}</dl>{across}"
        f"{''.join(sections)}</body></html>\n"
    )
