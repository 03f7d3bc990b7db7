"""Playing in a world: the game over a session, and the local page that shows it.

`game` knows nothing of sockets, `server` nothing of models.
"""
