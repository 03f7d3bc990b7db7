"""The result as tables and sentences, for the terminal and the report alike."""

from typing import Any

from framepred.evaluation.futures import BASELINES, ROWS
from framepred.evaluation.protocol import RUNS_OWN

ROW_NAMES = {
    "model": "model",
    "model_mean": "model, mean of samples",
    "model_true_actions": "model, true actions",
    "model_no_actions": "model, no actions",
    "model_shuffled_actions": "model, shuffled actions",
    "copy_last": "copy last frame",
    "linear": "linear extrapolation",
    "nearest_training": "nearest training clip",
    "decoder_alone": "decoder alone",
    "ceiling": "tokenizer ceiling",
}
_Column = tuple[str, str, int]
NEARNESS: tuple[_Column, ...] = (
    ("psnr", "PSNR dB", 2), ("ssim", "SSIM", 3), ("motion_psnr", "moving dB", 2), ("lpips", "LPIPS", 3),
    ("fid", "FID", 1), ("fvd", "FVD", 1),
)  # fmt: skip
LOOK: tuple[_Column, ...] = (
    ("sharpness", "sharpness", 2), ("motion_ratio", "motion ratio", 2), ("frozen", "frozen", 2),
    ("bits", "bits/frame", 1), ("accuracy", "tokens right", 3),
)  # fmt: skip
OVER_COPYING = "over copying"


def _cell(value: dict[str, Any] | None, digits: int, sign: str = "", bounds: bool = True) -> str:
    if value is None:
        return "-"
    text = f"{value['value']:{sign}.{digits}f}"
    return f"{text}±{(value['high'] - value['low']) / 2:.{digits}f}" if bounds and "low" in value else text


def group_table(
    group: dict[str, Any], columns: tuple[_Column, ...] = NEARNESS + LOOK, bounds: bool = True
) -> tuple[list[str], list[list[str]]]:
    """Return headers and rows of a group's metrics, with `bounds` each with half of its interval.

    Rows without any of these metrics are left out (`notes` says why), and those that are the model's own row again.
    Beside the metrics of nearness stands the gain over copying the last frame, in moving dB.
    """
    shown = _shown_rows(group)
    used = [c for c in columns if any(c[0] in group["rows"][row]["metrics"] for row in shown)]
    headers = ["", *(label for _, label, _ in used)]
    gain = columns[0] in NEARNESS and any("motion_psnr" in group["rows"][row]["over_copy_last"] for row in shown)
    rows = []
    for row in shown:
        values = group["rows"][row]
        if not any(metric in values["metrics"] for metric, _, _ in used):
            continue
        cells = [_cell(values["metrics"].get(metric), digits, bounds=bounds) for metric, _, digits in used]
        if gain:
            cells.append(_cell(values["over_copy_last"].get("motion_psnr"), 2, "+", bounds))
        rows.append([ROW_NAMES[row], *cells])
    return headers + [OVER_COPYING] * gain, rows


def _shown_rows(group: dict[str, Any]) -> list[str]:
    """Return the rows, but for one that is the model's own under another name."""
    rows = group["rows"]
    own = ("model_true_actions", "model_no_actions")
    return [row for row in ROWS if row not in own or rows[row]["metrics"] != rows["model"]["metrics"]]


def notes(group: dict[str, Any]) -> list[str]:
    """Say which rows there are no numbers of, and why, and which are of fewer clips: rows of one reason together."""
    reasons: dict[str, list[str]] = {}
    for row in ROWS:
        values = group["rows"][row]
        if "note" in values:
            reasons.setdefault(values["note"], []).append(ROW_NAMES[row])
        elif row in _shown_rows(group) and values["clips"] < group["clips"]:
            few = f"only {values['clips']} of the {group['clips']} clips, so not to be compared with the other rows"
            reasons.setdefault(few, []).append(ROW_NAMES[row])
    return [f"{'; '.join(rows)}: {reason}" for reason, rows in reasons.items()]


def is_predicting(group: dict[str, Any]) -> bool | None:
    """Say whether one future is better than copying the last frame, or worse; None where the clips cannot tell."""
    gain = group["rows"]["model"]["over_copy_last"].get("psnr")
    if gain is None or group["clips"] == 1 or gain["low"] <= 0 <= gain["high"]:
        return None
    return bool(gain["low"] > 0)


def answer(group: dict[str, Any], protocol: dict[str, Any]) -> str:
    """Answer in one sentence whether the model predicts: better than copying the last frame, and by how much."""
    gains, clips = group["rows"]["model"]["over_copy_last"], group["clips"]
    gain, moving = gains.get("psnr"), gains.get("motion_psnr")
    if gain is None:
        return "Is it predicting? Not measured: this protocol scores tokens alone."
    best = protocol["statistic"] == "best" and protocol["samples"] > 1
    drawn = f"the best of {protocol['samples']} futures" if best else "one future"
    yes = {True: "Yes", False: "No", None: "Not clearly"}[is_predicting(group)]
    between = f"{protocol['confidence']:.0%} interval {gain['low']:+.2f} to {gain['high']:+.2f}, {clips} clips"
    if clips == 1:
        yes, between = "One clip cannot tell", "1 clip"
    side = "above" if gain["value"] >= 0 else "below"
    where = f", and {moving['value']:+.2f} dB where the picture moves" if moving else ""
    return (
        f"Is it predicting? {yes}: {drawn} is {abs(gain['value']):.2f} dB {side} copying the last frame "
        f"({between}){where}."
    )


def known_sentence(group: dict[str, Any], most: int = 5) -> str | None:
    """Name the videos that the run knows from its training; None where there are none."""
    names = group.get("known")
    if not names:
        return None
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (
        f"The run knows {len(names)} of these videos from its training: {', '.join(names[:most])}{more}. "
        "Only others tell what it has learned."
    )


def groups_table(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return headers and a row for each group: the model's moving dB beside those of the copying baselines."""
    headers = ["moving dB", "clips", "motion", "model", "copy last", "nearest training", OVER_COPYING, "tokens right"]
    rows = []
    for group in result["groups"]:
        moving = {row: group["rows"][row]["metrics"].get("motion_psnr") for row in ("model", *BASELINES)}
        gain = _cell(group["rows"]["model"]["over_copy_last"].get("motion_psnr"), 2, "+")
        accuracy = _cell(group["rows"]["model"]["metrics"].get("accuracy"), 3, bounds=False)
        motion = f"{group['motion']:.4f}" if "motion" in group else "-"
        rows.append(
            [group["name"], str(group["clips"]), motion, _cell(moving["model"], 2),
             *(_cell(moving[row], 2, bounds=False) for row in ("copy_last", "nearest_training")), gain, accuracy]
        )  # fmt: skip
    return headers, rows


def horizon_table(group: dict[str, Any], most: int = 8) -> tuple[list[str], list[list[str]]] | None:
    """Return headers and rows of the motion-weighted PSNR by horizon; None where no frames were predicted."""
    curves = {row: group["rows"][row]["metrics"].get("motion_psnr", {}).get("by_horizon") for row in _shown_rows(group)}
    curves = {row: curve for row, curve in curves.items() if curve}
    if not curves:
        return None
    length = len(next(iter(curves.values())))
    shown = sorted({round(i * (length - 1) / (most - 1)) for i in range(most)}) if length > most else range(length)
    rows = [
        [ROW_NAMES[row], *("-" if curve[t] is None else f"{curve[t]:.2f}" for t in shown)]
        for row, curve in curves.items()
    ]
    return ["moving dB, frames ahead", *(f"+{t + 1}" for t in shown)], rows


def counterfactual_table(found: dict[str, Any], most: int = 3) -> tuple[list[str], list[list[str]]]:
    """Return headers and a row for each action: how often a picture goes the right way, and to its own future."""
    length = len(found["right_way"]["all"])
    shown = sorted({round(i * (length - 1) / (most - 1)) for i in range(most)})
    measures = (("right_way", "right way"), ("own_future", "own future"))
    headers = ["held action", *(f"{words} +{t + 1}" for _, words in measures for t in shown)]
    rows = []
    for i, name in enumerate([*found["actions"], "all"]):
        values = [
            (found[m]["all"] if name == "all" else found[m]["by_action"][i])[t] for m, _ in measures for t in shown
        ]
        rows.append([name, *("-" if v is None else f"{v:.0%}" for v in values)])
    return headers, rows


def verdict(group: dict[str, Any]) -> str:
    """Say at which horizons the model, and the mean of its samples, beat each baseline where the truth moves."""
    beaten = {"the model": _beaten(group["model_ahead"]), "the mean of its samples": _beaten(group["mean_ahead"])}
    said = [f"{subject} beats {'; '.join(parts)}" for subject, parts in beaten.items() if parts]
    if not said:
        return "No frames were predicted: tokens only, by teacher forcing."
    return "".join(f"Where the truth moves, {sentence}. " for sentence in said).rstrip()


def _beaten(ahead: dict[str, Any]) -> list[str]:
    parts = []
    for row in BASELINES:
        found = ahead[row]
        if found is None:
            continue
        if not found["below"]:
            parts.append(f"{ROW_NAMES[row]} at every horizon")
        elif found["above"]:
            parts.append(
                f"{ROW_NAMES[row]} at frames {_ranges(found['above'])} of {len(found['above'] + found['below'])}"
            )
        else:
            parts.append(f"{ROW_NAMES[row]} at none")
    return parts


def spread_sentence(spread: dict[str, Any]) -> str:
    """Say how far samples are from the truth and from each other, and how often the truth is outside their range."""
    error, between, score = (spread[name]["value"] for name in ("error", "spread", "energy"))
    return (
        f"Samples are {error:.4f} from the truth and {between:.4f} from each other (root mean square, pixels in "
        f"[0, 1]); energy score {score:.4f}, lower is better. The truth lies outside all samples at "
        f"{spread['outside']:.0%} of pixels; {spread['outside_if_calibrated']:.0%} would be calibrated."
    )


def _ranges(numbers: list[int]) -> str:
    """[1, 2, 3, 5] → "1-3, 5"."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][-1] + 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)


def header_facts(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what the numbers were made with, as (name, value)."""
    protocol, run = result["protocol"], result["run"]
    size = "the run's own" if protocol["size"] == [0, 0] else "x".join(map(str, protocol["size"]))
    drawn = f"{protocol['samples']} samples, {protocol['statistic']}" if protocol["samples"] > 1 else "one future"
    drawn = drawn if protocol["rollout"] else "teacher-forced only"
    counted = f"frames counted: {protocol['counted']}, PSNR {protocol['psnr']}, size {size}"
    own = protocol["temperature"] == RUNS_OWN
    temperature = f"{run['temperature']:g} (the run's own)" if own else f"{protocol['temperature']:g}"
    sampling = f"temperature {temperature}, seed {protocol['seed']}"
    frames = f"context {protocol['context']}, horizon {protocol['horizon']}"
    facts = [
        ("protocol", f"{protocol['sha256'][:12]}: {frames}, {drawn}, {counted}, {sampling}"),
        ("run", f"{run['path']} (sha256 {run['sha256'][:12]}, tokenizer {run['tokenizer_sha256'][:12]})"),
        ("training clips", ", ".join(result["train"]) if result["train"] else "not given: no nearest-training row"),
    ]
    for name, weights in result["weights"].items():
        shown = (
            weights if isinstance(weights, str) else f"{weights['variant']}; {weights['file']} {weights['sha256'][:12]}"
        )
        facts.append((name.upper(), shown))
    return facts
