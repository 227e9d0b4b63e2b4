"""The secret that a client shows to a model server."""

from __future__ import annotations

import os
import sys

TOKEN_VARIABLE = "FLARETUNE_MODEL_SERVER_TOKEN"  # the environment variable that holds it, on both sides
OLD_TOKEN_VARIABLE = "FLARETUNE_LM_TOKEN"  # its name in version 0.1, taken for one release


def token_of_environment() -> str:
    """The token in this process's environment; "" for none."""
    token = os.environ.get(TOKEN_VARIABLE)
    if not token and (token := os.environ.get(OLD_TOKEN_VARIABLE)):
        sentence = f"the environment variable {OLD_TOKEN_VARIABLE} is now called {TOKEN_VARIABLE}; rename it"
        print(f"warning: {sentence}", file=sys.stderr, flush=True)
    return token or ""
