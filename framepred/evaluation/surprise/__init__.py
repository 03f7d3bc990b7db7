"""Surprise: when and where the world was not what a run predicted.

A part of `evaluation`. It imports `world` and what that imports.
"""
