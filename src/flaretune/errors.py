"""The one exception for mistakes a user can correct, sentences for what is lacking, and how messages show values."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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


def lack_of_memory(error: BaseException) -> str | None:
    """One sentence for an error of this kind, of Python or of a GPU; None for any other."""
    # torch's is known by its name: not every process loads torch
    if not isinstance(error, MemoryError) and type(error).__name__ != "OutOfMemoryError":
        return None
    said = (str(error) or type(error).__name__).splitlines()[0]
    return (
        f"there is not enough memory ({said}): a smaller --batch_size needs less, and FedBPT's clients on one machine "
        "can share one model (--share_model 1, or --model_server)"
    )


def lack_of_package(error: BaseException) -> str | None:
    """One sentence for a package that is not installed, as in the environment of a server; None for any other error."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    return (
        f"the package {error.name.partition('.')[0]} is not installed: this takes all of requirements.txt "
        "(requirements-light.txt is for servers, and for clients with --model_server)"
    )


def near(word: str, known: Iterable[str], all_of_them: str = "there are {}") -> str:
    """The end of a sentence on an unknown name: the one that is most like it, or else which there are.

    Args:
        word: the unknown name.
        known: the names that there are.
        all_of_them: says which there are, in place of the braces.
    """
    known = list(known)
    found = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {found[0]!r}?" if found else all_of_them.format(", ".join(known))
