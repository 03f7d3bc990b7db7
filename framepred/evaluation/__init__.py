"""How good a prediction is: protocols, metrics, tables, reports, surprise.

After `engines`: it asks a run, whatever engine runs it. It imports `engines`, `llm`, `world` and what they import,
never `training`.
"""
