"""Training: one loop, what it trains, and the pipeline from sources to a run.

It imports `llm`, `world` and below.
"""
