"""The one exception for mistakes a user can correct."""


class UserError(ValueError):
    """Something the user gave is wrong; the message is one sentence that names it and says what would be right.

    The scripts print the message without a traceback and exit with status 1.
    """
