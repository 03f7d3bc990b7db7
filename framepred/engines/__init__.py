"""Other engines that run a run's Llama, and the export and upload of runs.

After `world`: a run leaves framepred here. It imports `llm`, `world` and what they import, never `training`.
"""
