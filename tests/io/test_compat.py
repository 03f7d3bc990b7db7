"""The torchvision repair: one call makes it and its dependants importable, in a fresh process, any number of times."""

import subprocess
import sys

import pytest


def python(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_torchvision_and_transformers_work_after_the_repair() -> None:
    pytest.importorskip("transformers")
    out = python("""
from framepred.io.compat import ensure_torchvision
ensure_torchvision()
ensure_torchvision()
ensure_torchvision.__wrapped__()
import torch
from torchvision.transforms import v2
from torchvision.utils import make_grid
assert v2.Resize((4, 6))(torch.zeros(3, 8, 8, dtype=torch.uint8)).shape == (3, 4, 6)
print(tuple(make_grid(torch.zeros(4, 3, 8, 8), nrow=2).shape))
from transformers import LlamaConfig, LlamaForCausalLM
print(LlamaForCausalLM(LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
      num_attention_heads=1)).config.vocab_size)
""")
    assert out.split("\n")[:2] == ["(3, 22, 22)", "8"]


def test_the_repair_survives_a_failed_import_before_it() -> None:
    python("""
try:
    import torchvision
except RuntimeError:
    pass
from framepred.io.compat import ensure_torchvision
ensure_torchvision()
from torchvision.transforms.v2 import functional as F
import torch
assert F.resize(torch.zeros(1, 3, 8, 8), [4, 4]).shape == (1, 3, 4, 4)
""")


def test_other_import_failures_are_not_hidden() -> None:
    python("""
import importlib
from framepred.io import compat
def broken(name):
    raise RuntimeError("something else")
compat.importlib.import_module = broken
try:
    compat.ensure_torchvision()
except RuntimeError as error:
    assert "something else" in str(error)
else:
    raise SystemExit("hidden")
""")
