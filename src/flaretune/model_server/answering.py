"""What one worker of the service does: keeps black boxes and texts by their handles, and answers questions."""

from __future__ import annotations

import os
import sys
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from flaretune.data.load import Examples
from flaretune.errors import UserError
from flaretune.methods.artifact_parts import read_task
from flaretune.model_server.protocol import Ask, logits_message
from flaretune.models.black_box import BlackBox, Question, TextSet
from flaretune.models.load import Pretrained
from flaretune.models.prompt_settings import PromptSettings
from flaretune.models.prompted import PromptedModel, prompt_model, share_weights

Kept = TypeVar("Kept")
OK, BAD_REQUEST, NOT_FOUND, FAILED = 200, 400, 404, 500


@dataclass(frozen=True)
class Answer:
    """An HTTP status and the body that goes with it, plain JSON values."""

    status: int
    body: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Target:
    """Registered texts, and whom to ask about them."""

    black_box: BlackBox
    texts: TextSet


class LatestKept(Generic[Kept]):
    """The things used last, by handle; the one used longest ago makes room."""

    def __init__(self, most: int):
        self._most = most
        self._kept: OrderedDict[str, Kept] = OrderedDict()

    def get(self, handle: str) -> Kept | None:
        if handle in self._kept:
            self._kept.move_to_end(handle)
        return self._kept.get(handle)

    def keep(self, handle: str, thing: Kept) -> None:
        self._kept[handle] = thing
        while len(self._kept) > self._most:
            self.drop_oldest()

    def drop_oldest(self) -> bool:
        """Whether there was one."""
        if self._kept:
            self._kept.popitem(last=False)
            return True
        return False


@dataclass(frozen=True, eq=False)
class Opened:
    """A black box, and the texts registered with it."""

    prompted: PromptedModel
    targets: LatestKept[Target]


class Answering:
    """Answers messages with one model.

    Args:
        pretrained: the model.
        batch_size: texts in a forward pass; 0 for the default.
        cache_mb: MiB for computed text, for each black box.
        most_boxes, most_texts: how many black boxes, and sets of texts with each, are kept.
    """

    def __init__(
        self,
        pretrained: Pretrained,
        batch_size: int,
        cache_mb: int,
        most_boxes: int = 4,
        most_texts: int = 1024,
    ):
        self._pretrained = pretrained
        self._batch_size = batch_size
        self._cache_mb = cache_mb
        self._most_texts = most_texts
        self._opened: LatestKept[Opened] = LatestKept(most_boxes)

    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        """Answer several messages; questions to the same black box share forward passes.

        A status of 404 asks for the contents, 400 comes with one sentence about what is wrong, and so does 500, which
        may pass: there is not enough memory now.
        """
        answers: list[Answer | None] = [None] * len(asks)
        questions: dict[BlackBox, dict[int, Question]] = {}
        for i, ask in enumerate(asks):
            try:
                found = self._find(ask)
            except UserError as error:
                found = Answer(BAD_REQUEST, {"error": str(error)})
            except Exception as error:  # a question that nobody foresaw must not fail those asked beside it
                found = _failed(error)
            if isinstance(found, Answer):
                answers[i] = found
            else:
                questions.setdefault(found.black_box, {})[i] = Question(ask.points, found.texts)
        for black_box, group in questions.items():
            try:
                found = black_box.answer(list(group.values()))
            except Exception as error:
                answers = [_failed(error) if i in group else answer for i, answer in enumerate(answers)]
                continue
            for i, logits in zip(group, found, strict=True):
                answers[i] = Answer(OK, {"logits": logits_message(logits)})
        return [answer for answer in answers if answer is not None]

    def _find(self, ask: Ask) -> Answer | Target:
        """Whom to ask about which texts, or an answer that needs no forward pass."""
        opened = self._opened.get(ask.black_box.handle)
        if opened is None:
            if ask.black_box.content is None:
                return Answer(NOT_FOUND, {"unknown": ask.black_box.handle})
            opened = self._open(ask.black_box.content)
            self._opened.keep(ask.black_box.handle, opened)
        if ask.texts is None:
            return Answer(OK, {"model": asdict(opened.prompted.facts)})
        target = opened.targets.get(ask.texts.handle)
        if target is None:
            if ask.texts.content is None:
                return Answer(NOT_FOUND, {"unknown": ask.texts.handle})
            target = _register(opened.prompted, ask.texts.content)
            opened.targets.keep(ask.texts.handle, target)
        wanted = target.black_box.intrinsic_dim
        if ask.points.shape[1] != wanted:
            raise UserError(f"the points have {ask.points.shape[1]} numbers each, and {wanted} are searched")
        return target

    def _open(self, content: dict[str, Any]) -> Opened:
        for name, ours in (("model_name", self._pretrained.name), ("dtype", self._pretrained.dtype)):
            if content.get(name) != ours and (name, content.get(name)) != ("dtype", "auto"):
                raise UserError(
                    f"the service answers with --{name} {ours}, and was asked for {content.get(name)!r}; give both "
                    "the same"
                )
        try:
            spec = read_task(content["task"], "question to the service")
            settings = PromptSettings(**content["settings"])
        except (KeyError, TypeError) as error:
            raise UserError(
                f"the question's task or settings cannot be read ({error}): service and clients need the same version "
                "of flaretune"
            ) from error
        prompted = prompt_model(share_weights(self._pretrained), spec, settings, self._batch_size, self._cache_mb)
        targets: LatestKept[Target] = LatestKept(self._most_texts)
        prompted.black_box.make_room = targets.drop_oldest  # perturbed texts of rounds that have passed, and others
        return Opened(prompted, targets)


def _failed(error: Exception) -> Answer:
    """What a client is told where torch gives up; a GPU that has failed for good ends the worker, and the service."""
    if isinstance(error, torch.AcceleratorError):
        print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return Answer(FAILED, {"error": f"the model cannot answer ({reason}), where a smaller --batch_size may help"})


def _register(prompted: PromptedModel, content: dict[str, Any]) -> Target:
    try:
        columns, rows = content["columns"], content["rows"]
        examples = Examples(
            tuple(dict(zip(columns, row, strict=True)) for row in rows), np.zeros(len(rows), dtype=np.int64)
        )
        if not len(examples) or not all(isinstance(text, str) for row in rows for text in row):
            raise ValueError("texts are missing, or are no texts")
        if not content["prompt"]:
            return Target(prompted.plain_black_box, prompted.register_plain(examples))
        if content["perturbed"]:
            rate, seed = content["perturbed"]
            return Target(prompted.black_box, prompted.register_perturbed(examples, rate, seed))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the question's texts cannot be read: {error}") from error
    return Target(prompted.black_box, prompted.register(examples))
