"""What `framepred train` says before it begins and at its end."""

from typing import Any

from framepred.cli.console import duration
from framepred.config.frame_size import fit_of

_FITS = {
    "crop": "scaled to cover that and cropped at the centre (--fit pad or stretch shows all)",
    "pad": "scaled to lie in that whole, on black (--fit pad)",
    "stretch": "height and width scaled apart to that (--fit stretch)",
}


def start_lines(start: Any) -> list[str]:
    """Return a `training.start.Start` as lines for people."""
    frames = "" if start.frames is None else f", {start.frames:,} frames"
    time = "" if start.hours is None else f", {duration(start.hours * 3600)}"
    rates = ", ".join(f"{rate:g}" for rate in start.rates[:3]) + (", ..." if len(start.rates) > 3 else "")
    parts = " and ".join(f"a {part} of {count / 1e6:.1f}M parameters" for part, count in start.parameters.items())
    held = ", ".join(_held(h) for h in start.held_out[:3]) + (
        f" and {len(start.held_out) - 3} more" if len(start.held_out) > 3 else ""
    )
    steps = ", ".join(
        f"{count} {'step' if count == 1 else 'steps'} of the {stage}" for stage, count in start.steps.items()
    )
    threads = "thread" if start.threads == 1 else "threads"
    return [
        f"data: {start.videos} {'video' if start.videos == 1 else 'videos'}{frames}{time}, {rates} frames/s; "
        f"actions: {', '.join(start.actions) or 'none'}",
        f"pictures: {start.size[0]}x{start.size[1]}, {_FITS[fit_of(start.size)]}",
        f"not trained on: {held or 'nothing, so nothing says how good it is: give two videos, or a longer one'}",
        f"model: {parts}, from {start.origin or 'nothing'}",
        f"computing: {start.device}, {start.threads} {threads}; "
        + (f"{start.minutes:g} {'minute' if start.minutes == 1 else 'minutes'} in all" if start.minutes else steps),
    ]


def _held(held: Any) -> str:
    return f"{held.name} from frame {held.first}" if held.first else held.name


def verdict_lines(verdict: Any) -> list[str]:
    """Return an `evaluation.verdict.Verdict` as lines for people."""
    gain = verdict.over_copying
    fit = {
        "over": "trained too long for these videos",
        "under": "not trained long enough",
        "well": "trained about long enough",
        "unknown": "too few validations to say whether it was trained long enough",
    }[verdict.fit]
    clips = f"{verdict.clips} {'clip' if verdict.clips == 1 else 'clips'}"
    return [
        f"verdict: {abs(gain):.2f} dB {'better' if gain > 0 else 'worse'} than copying the last frame "
        f"({verdict.model:.2f} against {verdict.copying:.2f} dB, one future of {verdict.horizon} frames, {clips} that "
        f"it was not trained on; {verdict.worse_clips} worse than copying)",
        f"temperature {verdict.temperature:g}, chosen there: "
        + ", ".join(f"at {t.temperature:g} {t.psnr:.2f} dB (motion {t.motion_ratio:.2f})" for t in verdict.trials),
        f"{fit}; what would help most: {'; '.join(verdict.advice)}",
    ]
