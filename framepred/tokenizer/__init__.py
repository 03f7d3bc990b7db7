"""Image tokenizers: frames ⇄ grids of discrete tokens. Nothing here knows of sequences."""
