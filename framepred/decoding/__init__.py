"""Logits → tokens: sampling, and decoding a frame sequentially or speculatively.

After the model on the line. It imports `predictor` and `sequence`.
"""
