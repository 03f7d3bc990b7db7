"""Tokens and actions ⇄ one flat sequence of ids.

Between tokens and model. It imports `config` and knows no pixels.
"""
