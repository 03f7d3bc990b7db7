"""What `learn` and `reinforce` are given: a folder that is no run is refused, videos without actions are warned of."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import moving_square

from framepred.config.recipe import Recipe, apply
from framepred.errors import FramepredError, FramepredWarning
from framepred.training.learn import LearnJob, learn, reinforce
from framepred.video.write import write_video

RECIPE = apply(
    Recipe(),
    {"training": {"precision": "fp32"}, "learning": {"steps": 0, "held_out": 0.0},
     "reinforcement": {"updates": 1, "contexts": 1, "group": 2, "context": 2, "horizon": 2}},
)  # fmt: skip
BOTH = pytest.mark.parametrize("begin", [learn, reinforce])


@BOTH
def test_what_predicts_no_frames_is_refused(begin: Callable[..., Any], tiny_run: Path, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.mkdir()
    # A language model, as transformers writes one.
    (text / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    for model in (tiny_run / "tokenizer", text):
        with pytest.raises(FramepredError, match=rf"{model.name} is no run \(no framepred.json\): give a folder"):
            list(begin(LearnJob([str(tmp_path)], str(model), tmp_path / "out", RECIPE)))
    assert not (tmp_path / "out").exists()


@BOTH
def test_videos_without_actions_are_warned_of(begin: Callable[..., Any], tiny_run: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "silent" / "a.mp4", moving_square(0, 6)[0], 10, lossless=True)
    with pytest.warns(FramepredWarning, match="silent has no actions: ") as warned:
        list(begin(LearnJob([str(tmp_path / "silent")], str(tiny_run), tmp_path / "out", RECIPE)))
    assert sum(" has no actions" in str(one.message) and "\n" not in str(one.message) for one in warned) == 1
    assert (tmp_path / "out" / "framepred.json").is_file()
