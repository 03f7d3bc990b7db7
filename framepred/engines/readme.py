"""The README of an exported folder: the lines that load it."""

from framepred.llm.token_names import token_names
from framepred.world.run import Run

_HF = """from transformers import AutoModelForCausalLM, AutoTokenizer

model, tokenizer = AutoModelForCausalLM.from_pretrained("."), AutoTokenizer.from_pretrained(".")
begin = tokenizer("{token}", return_tensors="pt", return_token_type_ids=False)
ids = model.generate(**begin, max_new_tokens={count}, do_sample=False)
print(tokenizer.decode(ids[0]))"""
_GGUF = """import xllamacpp

settings = xllamacpp.CommonParams()
settings.model.path = "model.gguf"
llama = xllamacpp.Server(settings)
print(llama.handle_completions({{"prompt": [{id}], "max_tokens": {count}, "temperature": 0.0}})["choices"][0])"""
_FOR = {"hf": "transformers and vLLM", "gguf": "llama.cpp"}


def export_readme(run: Run, name: str, format: str) -> str:
    """Return the README.md of a folder `name` that `export` wrote as "hf" or "gguf"."""
    layout = run.layout
    first = layout.vocabulary.visual[0]
    lines = _HF if format == "hf" else _GGUF
    code = lines.format(token=token_names(layout.vocabulary)[first], id=first, count=layout.frame_tokens)
    return f"""# {name}

A video predictor made with framepred, for {_FOR[format]}: a Llama whose tokens are frames and actions. `tokenizer.json`
names every id. In this folder:

```python
{code}
```

That draws tokens and no picture. Pictures, actions and the window of frames are framepred's part, which takes this
folder as any run:

```bash
framepred rollout clip.mp4 --model {name}
```
"""
