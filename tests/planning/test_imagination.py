"""What is imagined of many sequences is what a session of each would imagine, though they share what they can."""

import pytest
import torch
from conftest import moving_square
from temporal_run import write_temporal_run

from framepred.planning.judges import Imagined, Shuffled, imagine
from framepred.world.goal import feature_distance, pixel_distance
from framepred.world.run import Run, load_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return load_run(write_temporal_run(tmp_path_factory.mktemp("runs") / "temporal"))


FRAMES, ACTIONS = moving_square(3, 9)
CANDIDATES = torch.tensor([[1, 1, 2, 0], [1, 1, 2, 3], [0, 3, 3, 3], [1, 2, 2, 0], [1, 1, 2, 0]])


def test_sequences_that_begin_alike_share_a_future_and_all_are_right(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    session = run.session(FRAMES[:4], ACTIONS[:3], temperature=0.0)
    counts, decode = list[int](), run.tokenizer.decode_next

    def counted(pictures: torch.Tensor, actions: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        counts.append(len(tokens))
        return decode(pictures, actions, tokens)

    monkeypatch.setattr(run.tokenizer, "decode_next", counted)
    made = imagine(session, CANDIDATES)
    assert counts == [2, 3, 3, 4]
    assert made.shape == (5, 4, 3, 64, 64) and session.frame == 4
    for row, actions in enumerate(CANDIDATES):
        alone = run.session(FRAMES[:4], ACTIONS[:3], temperature=0.0)
        assert torch.equal(made[row], torch.cat([alone.step(action) for action in actions]))
    assert torch.equal(made[0], made[4]) and not torch.equal(made[0], made[1])


def test_a_judgement_is_the_distance_of_what_is_imagined_and_an_observation_moves_it(run: Run) -> None:
    goal, session = FRAMES[8], run.session(FRAMES[:4], ACTIONS[:3], temperature=0.0)
    for distance in (pixel_distance(goal), feature_distance(run, goal)):
        assert distance(goal[None]).tolist() == [0.0]
        world = Imagined(session, distance)
        judged = world.judge(CANDIDATES)
        assert torch.equal(judged[2], distance(imagine(session, CANDIDATES)[2]))
        shuffled = Shuffled(session, distance).judge(CANDIDATES)
        assert torch.equal(shuffled, judged.roll(1, 0)) and not torch.equal(shuffled, judged)
    for frame, action in zip(FRAMES[4:6], ACTIONS[3:5], strict=True):
        world.observe(action, frame)
    after = Imagined(run.session(FRAMES[:6], ACTIONS[:5], temperature=0.0), distance)
    assert torch.allclose(world.judge(CANDIDATES), after.judge(CANDIDATES), atol=1e-6)
