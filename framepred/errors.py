"""The errors that a user can cause and mend: one line each, shown without a traceback."""


class FramepredError(Exception):
    """Something a user can fix: the message says what, the value, what is allowed and the fix."""


class FramepredWarning(UserWarning):
    """Something that went on, but not as asked (a truncated video, no validation episodes)."""


class Interrupted(FramepredError):
    """Training was stopped by the user; the message says how to go on."""
