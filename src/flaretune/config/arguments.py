"""Options as arguments of a constructor, by which NVFlare makes a component from a job's file and exports it."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from flaretune.config.old_names import renew
from flaretune.config.options import Options, defaults

log = logging.getLogger("flaretune.server")


def takes_options(config: type[Options], **more: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorates ``__init__(self, config, **more)``, which is then called with options by name, old names too.

    Its signature has every option with its default. NVFlare's export looks for attributes of these names.

    Args:
        config: whose options; an instance is what the constructor gets.
        more: further arguments, with their defaults.
    """
    known = defaults(config) | more
    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    parameters += [inspect.Parameter(name, kind, default=value) for name, value in known.items()]

    def decorate(init: Callable[..., None]) -> Callable[..., None]:
        @wraps(init)
        def made(self: Any, **given: Any) -> None:
            options, sentences = renew(given, config, place="")
            for sentence in sentences:
                log.warning(sentence)
            others = {name: options.pop(name, value) for name, value in more.items()}
            init(self, config(**options), **others)

        made.__signature__ = inspect.Signature(parameters)
        return made

    return decorate
