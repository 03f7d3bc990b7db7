"""A run and what it predicts: loading, sessions, rollouts, likelihoods.

It puts the line together, from frames to frames. It imports every package before it, from `decoding` to `io`.
"""
