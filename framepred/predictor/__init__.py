"""The Llama: configuration, layers, attention, KV cache, fast CPU layers, and its weights in other formats.

After `sequence` on the line. It imports `io`; it sees ids, never pixels.
"""
