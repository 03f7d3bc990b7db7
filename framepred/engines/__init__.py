"""Other engines that run a run's Llama, and the export and upload of runs.

It imports `llm`, `world` and below.
"""
