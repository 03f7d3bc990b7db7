"""Text beside frames: language models, names of ids, prompts and captions.

After `world`: it adds words to a run. It imports `world`, and `decoding`, `predictor`, `sequence`, `sources`, `io`.
"""
