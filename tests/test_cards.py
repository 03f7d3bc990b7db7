"""The figures on a tokenizer's card are those that its command gives."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from framepred.tokenizer.checkpoint import tokenizer_sha256

ROOT = Path(__file__).parent.parent
CARDS = sorted((ROOT / "tokenizers").glob("*/README.md"))
ROW = re.compile(r"^\| (.+) \| (\d+) \| (\d+\.\d+) \| (\d\.\d+) \|$", re.MULTILINE)

ENVIRONMENTS = {
    "doom-64": ("VizdoomMyWayHome-v1", "VizdoomTakeCover-v1"),
    "games-64": ("VizdoomBasic-v1", "Crafter", "CarRacing-v3", "BipedalWalker-v3"),
}


def figures(text: str) -> dict[str, tuple[float, ...]]:
    return {name: tuple(map(float, values)) for name, *values in ROW.findall(text)}


@pytest.mark.slow
@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.parent.name)
def test_a_card_says_what_is_measured(card: Path) -> None:
    for module in ("vizdoom", "crafter", "Box2D"):
        pytest.importorskip(module)
    # One environment of each kind: training's own, and one never seen; a full measurement takes minutes.
    chosen = [word for env in ENVIRONMENTS[card.parent.name] for word in ("--only", env)]
    command = [sys.executable, str(ROOT / "scripts" / "card"), card.parent.name, *chosen]
    measured = figures(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    written = figures(card.read_text())
    assert len(measured) == 1 + len(ENVIRONMENTS[card.parent.name])
    assert written.keys() >= measured.keys()
    for name, values in measured.items():
        # Another processor rounds otherwise, and a code here and there tips over. Crafter moves its creatures in the
        # order of a set of objects, which is that of their addresses: a seed gives the same world, not the same walk.
        assert written[name] == pytest.approx(values, abs=0.15 if name.startswith("Crafter") else 0.03), name


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.parent.name)
def test_a_card_names_its_file(card: Path) -> None:
    assert tokenizer_sha256(card.parent) in card.read_text()
