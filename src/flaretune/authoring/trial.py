"""What a file of labelled texts is good for: the learned verbalizer cross-validated, from one pass of the model.

The model is asked once about each text. Every head, its words included, is then made of training texts alone, by what a
job's clients and server compute (`HeadSteps`, `HeadFit`), and judged on texts that it has not seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flaretune.aggregation.mean import Mean
from flaretune.authoring.new import task_text
from flaretune.config.toml import tomllib
from flaretune.data.load import Examples, load_split
from flaretune.errors import UserError
from flaretune.methods.classifier import score
from flaretune.methods.exchanged import FitResult
from flaretune.methods.verbalizer.config import VerbalizerConfig
from flaretune.methods.verbalizer.head import HEAD_STEPS, Head
from flaretune.methods.verbalizer.head_fit import HeadFit
from flaretune.methods.verbalizer.head_steps import AskedTexts, HeadSteps, WordFeatures
from flaretune.models.progress import Progress, in_silence
from flaretune.seeding import derive_seed
from flaretune.softmax import softmax
from flaretune.tasks.checks import AUTO
from flaretune.tasks.evaluation import Counters
from flaretune.tasks.spec import TaskSpec, parse_task

FOLDS = 5
DRAWS = 10  # of training labels, for each point of the learning curve; two for each held-out fold
FIRST = 8  # labels per class at the learning curve's first point; each other has twice as many
SHOWN = 10  # texts that it is most wrong about


@dataclass(frozen=True)
class CurvePoint:
    """The metric on held-out texts with so many training labels per class: mean and deviation (n - 1) over draws."""

    labels_per_class: int
    mean: float
    standard_deviation: float
    draws: int


@dataclass(frozen=True)
class WrongText:
    """A text whose label has a low probability: the label, the prediction, and that one's probability."""

    text: dict[str, str]
    label: int | str
    prediction: int | str
    probability: float


@dataclass(frozen=True)
class Trial:
    """What came of it.

    Attributes:
        metric, value, standard_error: of the predictions of all folds together; the error is over texts.
        n, n_there: texts that are used, and different ones in the data.
        n_twice: rows left out because their text stands in an earlier row.
        n_by_class: texts of each class, by raw label.
        majority: share of the most frequent class.
        curve: empty where a class has too few texts.
        most_wrong: `SHOWN` at the most, worst first.
        example_forwards: texts sent through the model, for each template.
        toml: the task file to go on with.
    """

    model_name: str
    metric: str
    value: float | None
    standard_error: float | None
    n: int
    n_there: int
    n_twice: int
    n_by_class: dict[str, int]
    majority: float
    curve: tuple[CurvePoint, ...]
    most_wrong: tuple[WrongText, ...]
    example_forwards: int
    toml: str


class HeadsOfTexts:
    """Heads from what a model has said of texts.

    Args:
        data: the texts, with what the model has said of candidates.
        n_words: of a head, for each template.
    """

    def __init__(self, spec: TaskSpec, data: AskedTexts, features: WordFeatures, n_words: int):
        self.spec, self.data = spec, data
        self._features, self._n_words = features, n_words

    def head(self, rows: np.ndarray) -> Head:
        """The head that a job makes of texts at `rows`, without validation texts: λ and τ by leave-one-out losses.

        Raises:
            UserError: no word's log-probability varies over them.
        """
        train, n_classes = self._take(rows), self.spec.n_classes
        n_templates, n_candidates = train.log_probs.shape[1:]
        nothing = AskedTexts((), np.zeros(0, dtype=np.int64))
        steps = HeadSteps(self._features.log_probs, train, nothing, n_classes, n_templates)
        fit = HeadFit(
            Mean(),
            candidates=self.data.ids,
            neutral=np.zeros((n_templates, n_candidates)),  # which only noised sums need
            label_ids=(),
            n_words=self._n_words,
            n_classes=n_classes,
            most=len(rows),
            leave_one_out=True,
        )
        for step in HEAD_STEPS:
            arrays = fit.check(step, steps.reply(step, *fit.configure(step)))
            fit.aggregate(step, {"all": FitResult(arrays, {}, Counters(1, 0, 0.0))})
        return fit.head

    def probabilities(self, head: Head, rows: np.ndarray) -> np.ndarray:
        """Of the classes, float64 (N, C), for texts at `rows`."""
        return softmax(head.logits(self._features.log_probs(self._take(rows), head.words)))

    def _take(self, rows: np.ndarray) -> AskedTexts:
        d = self.data
        return AskedTexts([d.texts[row] for row in rows], d.labels[rows], ids=d.ids, log_probs=d.log_probs[rows])


def try_data(
    data: str,
    text_columns: str,
    label_column: str,
    model_name: str,
    max_texts: int,
    config: VerbalizerConfig,
    folder: Path,
    progress: Progress = in_silence,
) -> Trial:
    """From a data file to a first number.

    Args:
        data: a data file, or a folder of train and test data, of which the test data is not looked at.
        text_columns, label_column: as `tasks new` takes them.
        max_texts: that the model is asked about.
        config: what the model is run in and on, how many words a head has, and the seed.
        folder: where the task file is to be.
        progress: gets the batches to go through, and their unit.

    Raises:
        UserError: the data cannot be read or has too few texts, or the model cannot be loaded.
    """
    given = {"text_columns": text_columns, "label_column": label_column, "label_words": AUTO}
    toml = task_text(folder, data, given, None)
    spec = parse_task(tomllib.loads(toml), Path(data).stem, data, folder)
    examples, n_there, n_twice = draw_sample(load_split(spec, "train"), spec, max_texts, config.seed)
    from flaretune.methods.verbalizer.open import open_words  # torch, once what is wrong with the data is said

    words = open_words(spec, model_name, config.dtype, config.device, config.batch_size, config.quantize)
    ids = np.sort(words.vocabulary().candidates)
    said = words.log_probs(examples.texts, ids, progress)  # (N, T, V)
    labelled = AskedTexts(examples.texts, examples.labels, ids=ids, log_probs=said)
    features = WordFeatures(words.log_probs, ids, len(words.templates))
    heads = HeadsOfTexts(spec, labelled, features, config.n_words)

    folds = draw_folds(examples.labels, config.seed)
    probabilities = cross_validate(heads, folds)
    found = score(spec, probabilities, examples.labels)
    return Trial(
        model_name=model_name,
        metric=found.metric,
        value=found.value,
        standard_error=found.standard_error,
        n=found.n,
        n_there=n_there,
        n_twice=n_twice,
        n_by_class={str(value): n for value, n in zip(spec.label_values, found.n_by_class, strict=True)},
        majority=max(found.n_by_class) / found.n,
        curve=learning_curve(heads, folds, config.seed),
        most_wrong=most_wrong(spec, examples, probabilities),
        example_forwards=words.log_probs.example_forwards,
        toml=toml,
    )


def draw_sample(examples: Examples, spec: TaskSpec, max_texts: int, seed: int) -> tuple[Examples, int, int]:
    """Draw texts, each class in proportion but with at least `FOLDS` texts.

    A text that stands in several rows is used once, or it could be held out and learned from at a time.

    Returns:
        The texts, at most `max_texts`; how many different ones there are; and how many rows repeat an earlier one.

    Raises:
        UserError: a class has fewer than `FOLDS` texts, or `max_texts` is below that for all classes.
    """
    first: dict[tuple[str, ...], int] = {}
    for row, text in enumerate(examples.texts):
        first.setdefault(tuple(text[column].strip() for column in spec.text_columns), row)
    distinct = examples.take(list(first.values()))
    counts = np.bincount(distinct.labels, minlength=spec.n_classes)
    if counts.min() < FOLDS:
        raise UserError(
            f"label {spec.label_values[counts.argmin()]!r} has {counts.min()} different texts, and cross-validation in "
            f"{FOLDS} folds needs {FOLDS} of each; give more texts of it, or remove its rows"
        )
    if max_texts < FOLDS * spec.n_classes:
        raise UserError(
            f"--max_texts {max_texts}: cross-validation in {FOLDS} folds needs {FOLDS} texts of each of "
            f"{spec.n_classes} classes; give at least {FOLDS * spec.n_classes}"
        )
    rng = np.random.default_rng(derive_seed(seed, "texts"))
    place = np.empty(len(distinct))  # those with the lowest are used
    for class_id, n in enumerate(counts):
        ranks = np.arange(n)
        members = rng.permutation(np.flatnonzero(distinct.labels == class_id))
        place[members] = np.where(ranks < FOLDS, -1.0, (ranks + 0.5) / n)
    chosen = np.sort(np.argsort(place, kind="stable")[:max_texts])
    return distinct.take(chosen), len(distinct), len(examples) - len(distinct)


def draw_folds(labels: np.ndarray, seed: int) -> np.ndarray:
    """The fold of each text, int64 (N,): `FOLDS` of nearly equal sizes, each class spread evenly over them."""
    rng = np.random.default_rng(derive_seed(seed, "folds"))
    order = [rng.permutation(np.flatnonzero(labels == class_id)) for class_id in np.unique(labels)]
    folds = np.empty(len(labels), dtype=np.int64)
    folds[np.concatenate(order)] = np.arange(len(labels)) % FOLDS
    return folds


def cross_validate(heads: HeadsOfTexts, folds: np.ndarray) -> np.ndarray:
    """Probabilities of the classes, float64 (N, C): for each fold by a head, its words too, made of the other folds."""
    found = np.empty((len(folds), heads.spec.n_classes))
    for fold in range(FOLDS):
        held_out = np.flatnonzero(folds == fold)
        found[held_out] = heads.probabilities(heads.head(np.flatnonzero(folds != fold)), held_out)
    return found


def learning_curve(heads: HeadsOfTexts, folds: np.ndarray, seed: int) -> tuple[CurvePoint, ...]:
    """The metric on a held-out fold by the number of labels per class that are drawn from the other folds.

    The labels of a draw are among those of its next point.
    """
    labels, spec = heads.data.labels, heads.spec
    most = min(np.bincount(labels[folds != fold], minlength=spec.n_classes).min() for fold in range(FOLDS))
    points = [n for i in range(32) if (n := FIRST * 2**i) <= most]
    values = np.empty((len(points), DRAWS))
    for draw in range(DRAWS):
        held_out = np.flatnonzero(folds == draw % FOLDS)
        rng = np.random.default_rng(derive_seed(seed, "labels per class", draw))
        mixed = rng.permutation(np.flatnonzero(folds != draw % FOLDS))
        by_class = [mixed[labels[mixed] == class_id] for class_id in range(spec.n_classes)]
        for i, n in enumerate(points):
            head = heads.head(np.sort(np.concatenate([rows[:n] for rows in by_class])))
            values[i, draw] = score(spec, heads.probabilities(head, held_out), labels[held_out]).value
    means, deviations = values.mean(axis=1).tolist(), values.std(axis=1, ddof=1).tolist()
    return tuple(CurvePoint(*point, DRAWS) for point in zip(points, means, deviations, strict=True))


def most_wrong(spec: TaskSpec, examples: Examples, probabilities: np.ndarray) -> tuple[WrongText, ...]:
    """Of the texts that are predicted wrongly, those whose label is the least probable."""
    predicted, rows = probabilities.argmax(axis=-1), np.arange(len(examples))
    of_label = probabilities[rows, examples.labels]
    wrong = [row for row in np.argsort(of_label, kind="stable") if predicted[row] != examples.labels[row]]
    return tuple(
        WrongText(
            examples.texts[row],
            spec.label_values[examples.labels[row]],
            spec.label_values[predicted[row]],
            float(probabilities[row, predicted[row]]),
        )
        for row in wrong[:SHOWN]
    )
