"""Surprise: when and where the world was not what a run predicted.

It imports the rest of `evaluation` and below.
"""
