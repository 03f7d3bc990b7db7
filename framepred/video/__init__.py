"""Video files ⇄ frames: read, write, resize, and pictures with labels.

The first and the last station of the line: pixels and times, nothing else. It imports `io`.
"""
