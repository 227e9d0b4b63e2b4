"""What a site of FedBPT sends of its search where its data is to be protected: its noised mean, and nothing else."""

from __future__ import annotations

from flaretune.methods.fedbpt.answers import SearchAnswer
from flaretune.methods.fedbpt.distribution import Distribution
from flaretune.methods.fedbpt.local_search import LocalResult, limit_norm
from flaretune.methods.fedbpt.cma_es import within
from flaretune.privacy.answers import private_counters, private_evaluation
from flaretune.privacy.release import Releases


def private_search(
    answer: SearchAnswer,
    start: Distribution,
    releases: Releases,
    *,
    generations: int,
    public_test: bool,
    bound: float = 0.0,
    norm_limit: float | None = None,
) -> SearchAnswer:
    """Noise an answer.

    Fitness would rank the sites, and one number of noise as large as this ranks nothing: it is not told, and the server
    gives all sites the same weight. The sum of squared step sizes is that of a search that keeps its first one.

    Args:
        answer: what the site found.
        start: what the server sent.
        releases: noises and counts.
        generations: I, of a search.
        public_test: whether test texts are no secret.
        bound, norm_limit: of the search, which the noised mean is brought back into.

    Raises:
        UserError, FloatingPointError: see `Releases.release`.
    """
    mean = releases.release({"mean": start.mean}, {"mean": answer.result.mean})["mean"]
    mean = limit_norm(within(mean, bound)[None], norm_limit)[0]
    queries = answer.result.queries
    return SearchAnswer(
        LocalResult(mean, 0.0, generations * start.sigma**2, queries),
        n_train=0,
        counters=private_counters(releases.count, queries),
        evaluation=None if answer.evaluation is None else private_evaluation(answer.evaluation, public_test),
    )
