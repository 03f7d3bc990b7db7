"""Gymnasium environments → video folders with actions and captions.

It makes the videos with which the line begins. It imports `sources`, `video` and `io`.
"""
