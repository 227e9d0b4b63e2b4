"""Sites of a job: their order, what they must agree on, and those that are ready late and join what runs."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from nvflare.app_common.abstract.fl_model import FLModel

from flaretune.engine.records import RoundRecord
from flaretune.tasks.evaluation import SetupAnswer

log = logging.getLogger("flaretune.server")


def natural_order(name: str) -> list:
    """Sort key that puts site-2 before site-10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


class LateSites:
    """Setup answers that come after the others have begun.

    Args:
        read: reads one.
        objection: says why a site's answer keeps it out, or gives "".
    """

    def __init__(self, read: Callable[[FLModel], Any], objection: Callable[[str, Any], str]):
        self._read = read
        self._objection = objection
        self._arrived: list[FLModel] = []

    def arrived(self, result: FLModel) -> None:
        """An answer is there; called by NVFlare's threads."""
        self._arrived.append(result)

    def ready(self) -> Iterator[tuple[str, Any]]:
        """Names and answers of those that may join from now on, each once; why others may not is logged."""
        while self._arrived:
            result = self._arrived.pop(0)
            site = result.meta.get("client_name", "an unknown site")
            try:
                answer = self._read(result)
                objection = self._objection(site, answer)
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
                objection = str(error)
            if objection:
                log.warning("%s is ready late and cannot join: %s", site, objection)
            else:
                yield site, answer


def disagreement(first: str, reference: SetupAnswer, site: str, answer: SetupAnswer) -> str:
    """In what a site was told something else than the first, as a sentence; "" if in nothing that matters."""
    for part in (name for name, value in reference.settings.items() if isinstance(value, dict)):
        mine, theirs = (
            {k: v for k, v in told.items() if (part, k) != ("model", "name")} if isinstance(told, dict) else {}
            for told in (reference.settings[part], answer.settings.get(part))
        )
        differing = [key for key in sorted({*mine, *theirs}) if mine.get(key) != theirs.get(key)]
        if differing:
            key = differing[0]
            return (
                f"the sites do not agree on the {part}: {key} is {mine.get(key)!r} at {first} and "
                f"{theirs.get(key)!r} at {site}; give all sites the same"
            )
    return ""


def warn_of_other_formats(before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Say which sites compute in another number format than they did in an earlier part of the run."""
    for site in before.keys() & now.keys():
        if before[site] != now[site]:
            log.warning(
                "%s computed in %s before and computes in %s now: numbers differ a little (--dtype sets one)",
                *(site, before[site], now[site]),
            )


def note_limited(record: RoundRecord, sites: list[str], aggregation: str) -> None:
    """Note and say whose answers of a round were far beyond those of the others."""
    record.limited = sites
    if sites:
        log.warning(
            "round %d: the answer of %s is far beyond those of the others: it is held to them (--aggregation %s)",
            *(record.round, ", ".join(sites), aggregation),
        )
