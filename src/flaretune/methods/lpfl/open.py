"""A client of LP-FL with its data and its model."""

from __future__ import annotations

from flaretune.config.options import as_dict, build
from flaretune.data.load import load_texts
from flaretune.methods.base import ClientContext
from flaretune.methods.client_data import load_data
from flaretune.methods.lpfl.client import ClientTexts, Labelled, LPFLClient
from flaretune.methods.lpfl.config import LPFLConfig
from flaretune.models.tuned import TuneSettings, open_tuned_model


def open_client(config: LPFLConfig, context: ClientContext) -> LPFLClient:
    """Load data and model.

    Raises:
        UserError: whatever the user can correct.
    """
    # drawn even where soft labels are off, so that the test data of a client's own file is the same; and of a common
    # data set even where this client has a file of its own, so that it tests on no text that others train on
    wanted = 0 if config.unlabelled_path and config.data_path else config.unlabelled
    spec, data = load_data(config, context, unlabelled=wanted)
    pool = load_texts(spec, config.unlabelled_path) if config.unlabelled_path else data.unlabelled
    settings = build(TuneSettings, as_dict(config))
    where = {name: getattr(config, name) for name in ("dtype", "device", "batch_size", "cache_mb", "quantize")}
    tuned = open_tuned_model(spec, config.model_name, settings, **where)
    encode = tuned.label_model.encode
    texts = ClientTexts(
        Labelled(encode(data.train.texts), data.train.labels),
        Labelled(encode(data.validation.texts), data.validation.labels),
        None if data.test is None else Labelled(encode(data.test.texts), data.test.labels),
        [] if config.soft_labels == "off" else encode(pool.texts),
        pool.truth,
    )
    return LPFLClient(config, context, tuned, texts)
