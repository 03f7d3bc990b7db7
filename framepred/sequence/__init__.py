"""Tokens and actions ⇄ one flat sequence of ids.

Between tokens and model on the line. It imports `config`; it knows neither pixels nor files.
"""
