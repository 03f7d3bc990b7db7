"""Video files ⇄ frames: read, write, resize, and pictures with labels.

The first station of the line. It imports `io`.
"""
