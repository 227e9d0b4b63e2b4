"""The one exception for mistakes a user can correct, and how a message shows a value that may be anything."""


class UserError(ValueError):
    """Something the user gave is wrong; the message is one sentence that names it and says what would be right.

    The scripts print the message without a traceback and exit with status 1.
    """


def shown(value: object, longest: int = 200) -> str:
    """`repr`, cut off, also of what is nested too deeply for it: others choose how long a value is."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # ValueError: of a whole number with thousands of digits
        return f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= longest else f"{text[:longest]}…"
