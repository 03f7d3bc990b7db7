"""Logits → tokens: sampling, and decoding a frame sequentially or speculatively.

After `predictor` on the line. It imports `predictor` and `sequence`.
"""
