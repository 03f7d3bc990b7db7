"""Frames ⇄ discrete tokens: framepred's own tokenizers and those of other libraries.

It knows pixels and codes, never sequences. It imports `io` and `config`.
"""
