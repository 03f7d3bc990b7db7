"""How good a prediction is: protocols, metrics, tables, reports, surprise.

It imports `engines`, `world` and below.
"""
