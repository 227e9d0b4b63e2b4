"""A worker of the model server: keeps black boxes and texts by their handles, and evaluates search points."""

from __future__ import annotations

import os
import sys
import threading
from collections import OrderedDict
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from flaretune.data.load import Examples
from flaretune.errors import UserError
from flaretune.model_server.protocol import Query, logits_message
from flaretune.models.black_box import BlackBox, TextSet
from flaretune.models.lanes import open_lanes, share_weights
from flaretune.models.load import Pretrained
from flaretune.models.prompt_settings import PromptSettings
from flaretune.models.prompted import PromptedModel, prompt_model
from flaretune.tasks.spec import read_task

Kept = TypeVar("Kept")
OK, BAD_REQUEST, NOT_FOUND, FAILED = 200, 400, 404, 500


@dataclass(frozen=True)
class Reply:
    """An HTTP status and the body that goes with it, plain JSON values."""

    status: int
    body: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Target:
    """Registered texts, and the black box that evaluates search points on them."""

    black_box: BlackBox
    texts: TextSet


class LatestKept(Generic[Kept]):
    """The things used last, by handle; the one used longest ago makes room. Threads may share it."""

    def __init__(self, most: int):
        self._most = most
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, handle: str) -> Kept | None:
        with self._lock:
            if handle in self._kept:
                self._kept.move_to_end(handle)
            return self._kept.get(handle)

    def keep(self, handle: str, thing: Kept) -> None:
        with self._lock:
            self._kept[handle] = thing
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)

    def drop_oldest(self) -> bool:
        """Whether there was one."""
        with self._lock:
            if self._kept:
                self._kept.popitem(last=False)
                return True
            return False


@dataclass(frozen=True, eq=False)
class Opened:
    """A black box, and the texts registered with it, by one thread at a time."""

    prompted: PromptedModel
    targets: LatestKept[Target]
    registering: threading.Lock = field(default_factory=threading.Lock)


class Worker:
    """Replies to queries with one model, several threads' at a time.

    Args:
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
        self._opening = threading.Lock()
        self.lanes = open_lanes(pretrained.device)

    def reply(self, query: Query) -> Reply:
        """The label-word logits of a query, or what the client must know or send first.

        A status of 404 calls for the contents, 400 comes with one sentence about what is wrong, and so does 500, which
        may pass: there is not enough memory now.
        """
        try:
            found = self._find(query)
            if isinstance(found, Reply):
                return found
            logits = found.black_box.label_logits(query.points, found.texts)
        except UserError as error:
            return Reply(BAD_REQUEST, {"error": str(error)})
        except Exception as error:  # whatever torch stumbles over: the next client's query may be a better one
            return _failed(error)
        return Reply(OK, {"logits": logits_message(logits)})

    def _find(self, query: Query) -> Reply | Target:
        """Black box and texts of a query, or a reply that needs no forward pass."""
        with self._opening:
            opened = self._opened.get(query.black_box.handle)
            if opened is None:
                if query.black_box.content is None:
                    return Reply(NOT_FOUND, {"unknown": query.black_box.handle})
                opened = self._open(query.black_box.content)
                self._opened.keep(query.black_box.handle, opened)
        if query.texts is None:
            return Reply(OK, {"model": asdict(opened.prompted.facts)})
        target = opened.targets.get(query.texts.handle)
        if target is None:
            if query.texts.content is None:
                return Reply(NOT_FOUND, {"unknown": query.texts.handle})
            with opened.registering:
                target = opened.targets.get(query.texts.handle)  # of another thread, perhaps, that was asked the same
                if target is None:
                    target = _register(opened.prompted, query.texts.content)
                    opened.targets.keep(query.texts.handle, target)
        wanted = target.black_box.intrinsic_dim
        if query.points.shape[1] != wanted:
            raise UserError(f"the points have {query.points.shape[1]} numbers each, and {wanted} are searched")
        return target

    def _open(self, content: dict[str, Any]) -> Opened:
        ours_by_name = {name: getattr(self._pretrained, name) for name in ("dtype", "quantize")}
        for name, ours in {"model_name": self._pretrained.name, **ours_by_name}.items():
            if content.get(name) != ours and (name, content.get(name)) != ("dtype", "auto"):
                raise UserError(
                    f"the model server runs --{name} {ours}, and a client wants {content.get(name)!r}; give both the "
                    "same"
                )
        try:
            spec = read_task(content["task"], "query")
            settings = PromptSettings(**content["settings"])
        except (KeyError, TypeError) as error:
            raise UserError(
                f"the query's task or settings cannot be read ({error}): model server and clients need the same "
                "version of flaretune"
            ) from error
        shared = share_weights(self._pretrained)
        prompted = prompt_model(shared, spec, settings, self._batch_size, self._cache_mb, lanes=self.lanes)
        targets: LatestKept[Target] = LatestKept(self._most_texts)
        prompted.black_box.make_room = targets.drop_oldest  # perturbed texts of rounds that have passed, and others
        return Opened(prompted, targets)


def _failed(error: Exception) -> Reply:
    """What a client is told where torch gives up; a GPU that has failed for good ends the worker, and the server."""
    if isinstance(error, torch.AcceleratorError):
        print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return Reply(FAILED, {"error": f"the model cannot answer ({reason}), where a smaller --batch_size may help"})


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
        raise UserError(f"the query's texts cannot be read: {error}") from error
    return Target(prompted.black_box, prompted.register(examples))
