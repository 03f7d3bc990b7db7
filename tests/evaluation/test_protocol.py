"""Protocols: the built-in ones read, wrong ones are refused by their message, and the hash is of what counts."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from framepred.errors import FramepredError
from framepred.evaluation.protocol import Protocol, load_protocol
from framepred.io.toml import built_in

# name: context, horizon, samples, statistic, counted, psnr
BUILT_IN = {
    "future": (4, 8, 1, "mean", "future", "pooled"),
    "bair-ivideogpt": (1, 15, 100, "best", "all", "frame"),
    "bair-strict": (1, 15, 1, "mean", "future", "pooled"),
    "robonet": (2, 10, 100, "best", "all", "frame"),
    "rt1": (4, 7, 1, "mean", "future", "frame"),
    "kinetics": (5, 11, 1, "mean", "all", "frame"),
    "1x": (1, 15, 1, "mean", "future", "pooled"),
}


def test_the_built_in_protocols_are_the_fields() -> None:
    assert set(built_in("protocol")) == set(BUILT_IN)
    for name, (context, horizon, samples, statistic, counted, psnr) in BUILT_IN.items():
        p = load_protocol(name)
        assert (p.context, p.horizon, p.samples) == (context, horizon, samples)
        assert (p.statistic, p.counted, p.psnr) == (statistic, counted, psnr)
        assert p.about
    assert [n for n in BUILT_IN if not load_protocol(n).rollout] == ["1x"]
    assert len({load_protocol(n).sha256 for n in BUILT_IN}) == len(BUILT_IN)


def test_the_hash_is_of_every_value_but_the_words() -> None:
    plain = Protocol()
    assert plain.sha256 == Protocol(about="other words").sha256
    others = {
        "size": (32, 32), "rollout": False, "statistic": "best", "counted": "all", "psnr": "frame", "lpips": "vgg",
        "top_p": 0.5, "confidence": 0.75,
    }  # fmt: skip
    for field in fields(Protocol):
        if field.name != "about":
            value = others[field.name] if field.name in others else getattr(plain, field.name) + 1
            assert replace(plain, **{field.name: value}).sha256 != plain.sha256, field.name


def test_a_file_takes_the_defaults_and_settings_lie_over_it(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('horizon = 3\nsamples = 9\nstatistic = "best"\n')
    p = load_protocol(file, {"samples": 2}, ["horizon=5", "size=[32, 40]", "psnr=frame"])
    about = "Changed here: samples = 2, horizon = 5, size = [32, 40], psnr = frame."
    assert p == Protocol(about, horizon=5, samples=2, statistic="best", size=(32, 40), psnr="frame")
    assert load_protocol(file).about == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("samples = 0", "protocol: samples = 0 is not allowed; it must be a whole number from 1 to 1024"),
        ("horizon = 0", "protocol: horizon = 0 is not allowed"),
        ("samples = 1.5", "protocol: samples = 1.5 is not a int"),
        ("rollouts = true", "protocol: unknown key rollouts; the keys here are about, bootstrap"),
        ('statistic = "worst"', "protocol: statistic = 'worst' is not allowed; choose one of mean, best"),
        ("size = [64, 0]", "protocol: size = (64, 0) is not allowed"),
        ("size = [64]", "is not a list of 2 numbers"),
        ("confidence = 1.0", "protocol: confidence = 1.0 is not allowed"),
        ("samples = ", "is not valid TOML"),
    ],
)
def test_what_a_protocol_may_not_say(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(FramepredError) as error:
        load_protocol(file)
    assert message in str(error.value)


def test_a_protocol_that_is_nowhere() -> None:
    with pytest.raises(FramepredError, match=r"'bayr' is neither a file nor a built-in; the built-ins are 1x, bair-iv"):
        load_protocol("bayr")
    with pytest.raises(FramepredError, match=r"protocol file none\.toml does not exist"):
        load_protocol("none.toml")
