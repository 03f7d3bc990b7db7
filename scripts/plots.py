"""Plots of the scripts' results as SVG text."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from framepred.evaluation.plots import COLOURS, make_figure, to_svg

_SERIES = [COLOURS[name] for name in ("model", "copy_last", "nearest_training", "ceiling")]


def rates_plot(rows: list[dict[str, Any]]) -> str:
    """Draw what tokenizers give back against the bits that they take a frame: PSNR and SSIM, a colour each.

    `rows` have `kind`, `bits_a_frame`, `psnr`, `ssim`, and where it was measured `rollout_psnr`, drawn hollow.
    """
    figure, (noise, likeness) = make_figure(9.2, 4.0, panels=2)
    for i, row in enumerate(rows):
        bits, colour, shape = row["bits_a_frame"], f"C{i}", "os^"[i // 10 % 3]
        noise.plot(bits, row["psnr"], shape, color=colour, label=row["kind"])
        likeness.plot(bits, row["ssim"], shape, color=colour)
        if "rollout_psnr" in row:
            noise.plot([bits] * 2, [row["psnr"], row["rollout_psnr"]], ":", color=colour, linewidth=1)
            noise.plot(bits, row["rollout_psnr"], shape, color=colour, fillstyle="none")
    noise.set(xlabel="bits a frame", title="PSNR, dB (hollow: of predicted frames)")
    likeness.set(xlabel="bits a frame", title="SSIM")
    figure.legend(loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    return to_svg(figure)


def seen_curves(curves: Mapping[str, Sequence[tuple[float, Sequence[float]]]], seen: str, label: str) -> str:
    """Draw a measure against what was seen, a line a name: of each point its place and values, their mean and range."""
    figure, axes = make_figure(4.6, 3.4)
    for colour, (name, points) in zip(_SERIES, curves.items(), strict=False):
        places = [place for place, _ in points]
        means, errors = _means([values for _, values in points])
        axes.errorbar(places, means, errors, color=colour, label=name, marker="o", markersize=4, capsize=3)
    axes.set(xlabel=seen, title=label)
    axes.legend(fontsize=7)
    return to_svg(figure)


def bars_plot(bars: Mapping[str, Mapping[str, Sequence[float]]], label: str) -> str:
    """Draw values by group and name, bars side by side: the mean, and the range."""
    names = list(dict.fromkeys(name for group in bars.values() for name in group))
    figure, axes = make_figure(1.6 + 1.2 * len(bars), 3.2)
    width = 0.8 / max(1, len(names))
    for i, (name, colour) in enumerate(zip(names, _SERIES, strict=False)):
        places = [g + (i - (len(names) - 1) / 2) * width for g, group in enumerate(bars.values()) if name in group]
        means, errors = _means([group[name] for group in bars.values() if name in group])
        axes.bar(places, means, width, yerr=errors, color=colour, label=name, capsize=3)
    axes.set_xticks(range(len(bars)), list(bars), fontsize=8)
    axes.set(title=label)
    axes.legend(fontsize=7)
    return to_svg(figure)


def _means(groups: Sequence[Sequence[float]]) -> tuple[list[float], list[list[float]]]:
    """Return each group's mean, and how far its range goes below and above."""
    means = [fmean(values) for values in groups]
    pairs = list(zip(means, groups, strict=True))
    return means, [[mean - min(values) for mean, values in pairs], [max(values) - mean for mean, values in pairs]]
