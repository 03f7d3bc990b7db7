"""Curves and histograms of a result as SVG text, by matplotlib."""

import io
from typing import Any

from framepred.errors import FramepredError

COLOURS = {
    "model": "#e07b00",
    "model_mean": "#c0392b",
    "model_no_actions": "#b5651d",
    "model_shuffled_actions": "#c9a27a",
    "copy_last": "#3b6fb6",
    "linear": "#7aa6d8",
    "nearest_training": "#6a4fb3",
    "decoder_alone": "#2e8b57",
    "ceiling": "#7a7a7a",
}
_STYLES = {"model_no_actions": "--", "model_shuffled_actions": ":", "linear": ":", "ceiling": "--"}


def require_matplotlib() -> None:
    """Raise FramepredError where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise FramepredError("a report needs matplotlib: pip install 'framepred[report]'") from error


def make_figure(width: float, height: float, panels: int = 1) -> tuple[Any, Any]:
    """Return a matplotlib figure of so many inches, and its axes: an array of them for several panels."""
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure((width, height), layout="constrained")
    axes = figure.subplots(1, panels)
    for panel in figure.axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25)
    return figure, axes


def to_svg(figure: Any) -> str:
    """Return a figure as SVG text, the same for the same figure."""
    import matplotlib

    buffer = io.StringIO()
    # The same result gives the same page.
    with matplotlib.rc_context({"svg.hashsalt": "framepred", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def horizon_curves(rows: dict[str, Any], names: dict[str, str], metric: str, label: str) -> str | None:
    """Draw a metric by horizon, a line a row; None where no row has it."""
    curves = {row: rows[row]["metrics"].get(metric, {}).get("by_horizon") for row in COLOURS if row in rows}
    curves = {row: curve for row, curve in curves.items() if curve}
    if not curves:
        return None
    figure, axes = make_figure(4.6, 3.4)
    for row, curve in curves.items():
        values = [float("nan") if v is None else v for v in curve]
        axes.plot(
            range(1, len(values) + 1), values, _STYLES.get(row, "-"), color=COLOURS[row], label=names[row],
            marker="o", markersize=3, linewidth=2.2 if row == "model" else 1.4,
        )  # fmt: skip
    axes.set(xlabel="frames ahead", title=label)
    axes.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside lower center", ncols=3, fontsize=7, frameon=False)
    return to_svg(figure)


def rank_plot(ranks: list[float]) -> str:
    """Draw a rank histogram beside the flat line that a calibrated spread would give."""
    figure, axes = make_figure(4.6, 2.6)
    axes.bar(range(len(ranks)), ranks, color=COLOURS["model"], width=0.9)
    axes.axhline(1 / len(ranks), color="#444", linestyle="--", linewidth=1, label="truth drawn as the samples are")
    axes.set(xlabel="rank of the truth among the samples, pixel by pixel", ylabel="share")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(fontsize=7)
    return to_svg(figure)


def groups_plot(groups: list[dict[str, Any]], names: dict[str, str], metric: str, label: str) -> str:
    """Draw a metric of model and baselines for each group side by side, with intervals."""
    shown = ("model", "copy_last", "nearest_training")
    figure, axes = make_figure(1.6 + 1.5 * len(groups), 3.2)
    for i, row in enumerate(shown):
        points = [(g, v) for g, group in enumerate(groups) if (v := group["rows"][row]["metrics"].get(metric))]
        if not points:
            continue
        values = [v["value"] for _, v in points]
        errors = [[v["value"] - v["low"] for _, v in points], [v["high"] - v["value"] for _, v in points]]
        places = [g + (i - 1) * 0.25 for g, _ in points]
        axes.errorbar(places, values, errors, fmt="o", color=COLOURS[row], label=names[row], capsize=3)
    axes.set_xticks(range(len(groups)), [g["name"].replace(", ", "\n") for g in groups], fontsize=8)
    axes.set(title=label)
    axes.legend(fontsize=7)
    return to_svg(figure)
