"""Text beside frames: language models, names of ids, prompts and captions.

It imports `world` and below.
"""
