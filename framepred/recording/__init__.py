"""Gymnasium environments → video folders with actions and captions.

It makes the videos with which the line begins. A policy plays, which may ask a run of `world`.
"""
