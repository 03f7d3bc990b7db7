"""Training: one loop, what it trains, and the pipeline from sources to a run.

After `llm`: it makes the runs that `world` loads. It imports `llm`, `world` and what they import, `tokens` too.
"""
