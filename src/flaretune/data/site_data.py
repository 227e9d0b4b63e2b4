"""Which examples a site works with: its own file, or its share of a common data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flaretune.data.fewshot import few_shot
from flaretune.data.load import Examples, load_file, load_split
from flaretune.data.partition import dirichlet_proportions, dirichlet_shares, iid_shares
from flaretune.errors import UserError
from flaretune.seeding import derive_seed
from flaretune.tasks.spec import TaskSpec


@dataclass(frozen=True)
class SiteData:
    """A site's examples: `train` to search on, `dev` to compare prompts on, `test` to report on (or None)."""

    train: Examples
    dev: Examples
    test: Examples | None


@dataclass(frozen=True)
class Split:
    """How a common data set is shared out: the same at every site that has the same numbers.

    Attributes:
        k_shot: examples a class for training, and as many for development, over all sites.
        n_shares: how many shares.
        iid: whether every share has the same label mix.
        alpha: concentration of the Dirichlet split, where not.
        seed: the job's seed.
    """

    k_shot: int
    n_shares: int
    iid: bool
    alpha: float
    seed: int


def share_of_common_set(
    spec: TaskSpec, dataset: str | None, split: Split, share: int, test_part: tuple[int, int] | None
) -> SiteData:
    """A site's share of the common data set.

    Args:
        spec: the task.
        dataset: in place of the task's own source; None for that.
        split: how the training and development examples are shared out.
        share: which share, in [0, split.n_shares).
        test_part: (i, k) for every k-th test example from the i-th on; None for no test data.

    Raises:
        UserError: the data cannot be had, is too small for k_shot, or leaves the share empty.
    """
    pool = load_split(spec, "train", dataset)
    train, dev = few_shot(pool.labels, split.k_shot, spec.n_classes, derive_seed(split.seed, "few-shot"))
    test = None
    if test_part is not None:
        test = load_split(spec, "test", dataset)
        first, step = test_part
        test = test.take(np.arange(first, len(test), step))
        if len(test) == 0:
            raise UserError(f"--eval_clients: the test data is too small to be divided among {step} sites")
    shares = [_shares(pool.labels[part], spec.n_classes, split, is_dev=part is dev) for part in (train, dev)]
    return SiteData(pool.take(train[shares[0][share]]), pool.take(dev[shares[1][share]]), test)


def own_data(spec: TaskSpec, path: str, k_shot: int, seed: int, with_test: bool) -> SiteData:
    """A site's own examples, none of which any other site sees.

    Args:
        spec: the task.
        path: a file, or a folder with a training file and, where the site evaluates, a test file. Of a single
            file, what is left after drawing training and development examples is the test data.
        k_shot: examples a class for training, and as many for development, at this site.
        seed: the job's seed.
        with_test: whether the site evaluates on test data.

    Raises:
        UserError: the data cannot be had, is too small for k_shot, or leaves nothing to test on.
    """
    is_folder = Path(path).expanduser().is_dir()
    pool = load_split(spec, "train", path) if is_folder else load_file(spec, path)
    train, dev = few_shot(pool.labels, k_shot, spec.n_classes, derive_seed(seed, "few-shot"))
    test = None
    if with_test and is_folder:
        test = load_split(spec, "test", path)
    elif with_test:
        rest = np.setdiff1d(np.arange(len(pool)), np.concatenate([train, dev]))
        if len(rest) == 0:
            raise UserError(
                f"{path}: --k_shot {k_shot} takes all {len(pool)} rows and leaves none to test on; "
                "use a smaller --k_shot, or leave this site out of --eval_clients"
            )
        test = pool.take(rest)
    return SiteData(pool.take(train), pool.take(dev), test)


def _shares(labels: np.ndarray, n_classes: int, split: Split, is_dev: bool) -> list[np.ndarray]:
    seed = derive_seed(split.seed, "shares", "dev" if is_dev else "train")
    if split.iid:
        return iid_shares(labels, split.n_shares, seed, allow_empty=is_dev)
    # one draw of proportions for both, so that a site's development examples are like its training examples
    proportions = dirichlet_proportions(n_classes, split.n_shares, split.alpha, derive_seed(split.seed, "proportions"))
    return dirichlet_shares(labels, proportions, seed, alpha=split.alpha, allow_empty=is_dev)
