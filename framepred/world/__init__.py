"""A run and what it predicts: loading, rollouts, likelihoods.

The line from video to video, put together. It imports everything above it on the line.
"""
