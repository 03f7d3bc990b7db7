"""SOURCE arguments → videos with their actions and captions.

After `video` on the line. It imports `video` and below. Nothing after it should know of files.
"""
