"""Recipes: everything that decides a run, as frozen dataclasses and TOML.

It imports `io`. No torch.
"""
