"""The aggregation rules. A new one is a file beside this one, and its line here."""

from __future__ import annotations

from flaretune.aggregation.base import AggregationRule
from flaretune.aggregation.clipped import Clipped
from flaretune.aggregation.mean import Mean
from flaretune.aggregation.median import Median
from flaretune.errors import UserError, shown

RULES: dict[str, AggregationRule] = {rule.name: rule for rule in (Mean(), Clipped(), Median())}
FORMER_NAMES = {"plain": "mean"}  # which jobs and checkpoints of version 0.1 have


def find_rule(name: str) -> AggregationRule:
    """The rule of this name, or of this name in earlier versions.

    Raises:
        UserError: there is none.
    """
    rule = RULES.get(FORMER_NAMES.get(name, name)) if isinstance(name, str) else None
    if rule is None:
        raise UserError(f"aggregation rule {shown(name)} is unknown; it must be one of {', '.join(RULES)}")
    return rule
