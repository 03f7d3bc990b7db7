"""The parts of the merge's experiment: a cut vocabulary, gaps in sentences, captions drawn evenly, packed texts."""

import gzip
import itertools
import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from documents import documents
from grounding import evenly
from language import save_language_model, with_first_words
from merge.answers import verdict
from merge.cloze import filled, make_gaps
from merge.questions import MEASURES
from merge.statistics import Estimate
from tiny_llama import TEXT, write_llama

from framepred.errors import FramepredError
from framepred.llm.model import load_language_model
from framepred.llm.token_names import TOKENIZER_JSON, text_ids, text_tokenizer


def test_with_fewer_words_text_takes_more_ids_and_the_model_says_of_them_what_it_said(tmp_path: Path) -> None:
    llm = load_language_model(write_llama(tmp_path / "llama"))
    words = text_tokenizer(llm.files[TOKENIZER_JSON])
    # One special, 256 bytes and " t" stay; "he" and " the" go.
    small = save_language_model(with_first_words(llm, 258), tmp_path / "small")
    read = load_language_model(small.path)
    fewer = text_tokenizer(read.files[TOKENIZER_JSON])
    text = "the theme, naïvely"
    ids = text_ids(fewer, text)
    assert fewer.decode(ids) == text and max(ids) < 258 == read.text_size
    assert len(ids) > len(text_ids(words, text))
    logits = llm.predictor(torch.tensor([ids]))[0, :, :258]
    assert torch.allclose(read.predictor(torch.tensor([ids]))[0, :, :258], logits, atol=1e-5)
    for size in (256, TEXT + 1):
        with pytest.raises(FramepredError, match=rf"{size} ids of .* are not allowed: give 257 to {TEXT}"):
            with_first_words(llm, size)
    assert json.loads(read.files[TOKENIZER_JSON])["model"]["merges"] == [["Ġ", "t"]]


TEXTS = (
    "The quick brown fox of all the hills jumps over the lazy {}.".format,
    "No one at all in this house knows {}.".format,
)
ENDS = ["river", "table", "stone", "cloud", "bread", "light", "north", "sword", "plant", "horse", "chair", "glass",
        "wheat", "mouse", "tower", "brick", "spoon", "apple"]  # fmt: skip


def test_gaps_are_last_words_with_words_of_their_length() -> None:
    texts = [TEXTS[i % 2](word) for i, word in enumerate(ENDS)] + ["Too short to be asked.", "Ends in a number 1984."]
    gaps = make_gaps(["\n".join(texts)], 100)
    assert sorted(gap.words[0] for gap in gaps) == sorted(ENDS)
    for gap in gaps:
        assert f"{gap.before} {gap.words[0]}{gap.after}" in texts
        assert len({*gap.words}) == 4 and {len(word) for word in gap.words} == {5}
    assert make_gaps(["\n".join(texts)], 100) == gaps
    assert len(make_gaps(["\n".join(texts)], 5)) == 5
    assert make_gaps(["Nothing of that kind."], 5) == []


def test_a_gap_is_filled_where_its_own_word_is_likeliest(tmp_path: Path) -> None:
    llm = load_language_model(write_llama(tmp_path / "llama"))
    words = text_tokenizer(llm.files[TOKENIZER_JSON])
    gaps = make_gaps([TEXTS[i % 2](word) for i, word in enumerate(ENDS)], 12)
    right = filled(llm.predictor, gaps, lambda text: text_ids(words, text), llm.text_size)
    for gap, said in zip(gaps, right, strict=True):
        scores = []
        for word in gap.words:
            ids = torch.tensor(text_ids(words, f"{gap.before} {word}{gap.after}"))
            logs = llm.predictor(ids[None, :-1])[0].log_softmax(-1)
            scores.append(float(logs.gather(1, ids[1:, None]).sum()))
        assert said is (max(scores) == scores[0])


def test_captions_are_drawn_evenly_over_their_events() -> None:
    groups = ["none"] * 90 + ["hit"] * 8 + ["death"] * 2
    places = evenly(groups, 22)
    assert places == sorted({*places})
    assert Counter(groups[i] for i in places) == {"none": 12, "hit": 8, "death": 2}
    nones = [i for i in places if i < 90]
    assert max(b - a for a, b in itertools.pairwise(nones)) <= 8
    assert evenly(groups, 1000) == list(range(100))
    assert evenly([], 5) == []


def test_packed_texts_are_read(tmp_path: Path) -> None:
    said = "What a dictionary says of a word. " * 10
    (tmp_path / "words.dict.dz").write_bytes(gzip.compress(said.encode()))
    (tmp_path / "broken.gz").write_bytes(b"no gzip" * 100)
    assert [text for _, text in documents([tmp_path])] == [said]


@pytest.mark.parametrize(
    ("items", "seeds", "words"),
    [
        ((-4.0, -2.0), (-4.5, -1.6), "better"),
        ((2.0, 4.0), (1.6, 4.5), "worse"),
        ((-0.5, 0.5), (-1.0, 1.2), "not there"),
        ((-4.0, -2.0), (-7.0, 0.5), "open"),
        # Sure to be there, too small to matter.
        ((-1.2, -0.8), (-1.3, -0.6), "not there"),
        ((-4.0, -2.0), None, "open: one seed (better over its clips)"),
        ((-0.5, 0.5), None, "open: one seed (no difference over its clips)"),
    ],
)
def test_what_a_difference_of_bits_decides(
    items: tuple[float, float], seeds: tuple[float, float] | None, words: str
) -> None:
    found = Estimate(sum(items) / 2, items, seeds, 90, 5.0)
    assert verdict(MEASURES["bits"], found) == words
