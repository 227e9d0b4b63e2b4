"""What an administrator's startup kit says."""

from __future__ import annotations

from pathlib import Path

from nvflare.lighter.utils import load_crt

from flaretune.errors import UserError

CERTIFICATE = Path("startup", "client.crt")


def administrator_of(startup_kit: str | Path) -> str:
    """Whose startup kit it is, by its certificate, which is what the server goes by.

    Raises:
        UserError: the folder is no administrator's startup kit.
    """
    try:
        subject = load_crt(str(Path(startup_kit) / CERTIFICATE)).subject
    except OSError as error:
        raise UserError(
            f"--startup_kit {startup_kit} is no administrator's startup kit: {CERTIFICATE} cannot be read "
            f"({error.strerror})"
        ) from error
    except ValueError as error:
        raise UserError(f"--startup_kit {startup_kit}: {CERTIFICATE} is damaged; provision the kit again") from error
    for entry in subject:
        if entry.rfc4514_attribute_name == "CN" and entry.value:
            return str(entry.value)
    raise UserError(f"--startup_kit {startup_kit}: {CERTIFICATE} names nobody; provision the kit again")
