"""What an administrator's startup kit says."""

from __future__ import annotations

import json
from pathlib import Path

from flaretune.errors import UserError

ADMIN_FILE = Path("startup", "fed_admin.json")


def administrator_of(startup_kit: str | Path) -> str:
    """The name of the administrator that a startup kit was made for, and that its certificate holds.

    Raises:
        UserError: the folder is no administrator's startup kit.
    """
    file = Path(startup_kit) / ADMIN_FILE
    try:
        name = json.loads(file.read_text(encoding="utf-8"))["admin"]["username"]
    except OSError as error:
        raise UserError(
            f"--startup_kit {startup_kit} is no administrator's startup kit: {ADMIN_FILE} cannot be read "
            f"({error.strerror})"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"--startup_kit {startup_kit}: {ADMIN_FILE} is damaged; provision the kit again") from error
    if not isinstance(name, str) or not name:
        raise UserError(f"--startup_kit {startup_kit}: {ADMIN_FILE} is damaged; provision the kit again")
    return name
