"""The token store: videos → tokens on disk, in any number of processes.

After `tokenizer` on the line. It imports `tokenizer`, `sources` and `io`.
"""
