"""Gymnasium environments → video folders with actions and captions.

It makes what the line begins with. It imports `sources` and `video`.
"""
