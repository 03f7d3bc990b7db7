"""Recipes: everything that decides a run, as frozen dataclasses and TOML, without torch.

It stands beside the line: whoever trains or loads a run reads it. It imports `io`.
"""
