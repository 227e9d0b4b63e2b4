"""pycma without what it plots with: matplotlib and scipy are 100 MiB of a process that only searches."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

UNUSED = ("matplotlib", "scipy")  # pycma has its own for what it takes of scipy, in a surrogate that is not used here


@contextmanager
def _without(packages: tuple[str, ...]) -> Iterator[None]:
    """Within it, packages seem not to be installed; those that were imported before are there again afterwards."""
    before = {name: sys.modules[name] for name in packages if name in sys.modules}
    sys.modules.update(dict.fromkeys(packages))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that plots are not available
            yield
    finally:
        for name in packages:
            sys.modules.pop(name, None)
        sys.modules.update(before)


with _without(UNUSED):
    import cma

__all__ = ["cma"]
