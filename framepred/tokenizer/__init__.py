"""Frames ⇄ discrete tokens: framepred's own tokenizers and those of other libraries.

After `sources` on the line. It imports `config` and `io`; it knows neither sequences nor video files.
"""
