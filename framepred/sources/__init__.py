"""SOURCE arguments → episodes: frames with their times, actions and captions.

After `video` on the line. It imports `video` and `io`. Packages after it take episodes, not files.
"""
