"""The Llama: configuration, layers, attention, KV cache, CPU paths, and GGUF files.

It sees ids, never pixels. It imports `io` only.
"""
