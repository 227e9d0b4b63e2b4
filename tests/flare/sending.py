"""Messages as they are after NVFlare has sent them.

Tests that use this need the fixture ``as_in_a_job`` of conftest.py.
"""

from __future__ import annotations

from nvflare.app_common.utils.fl_model_utils import FLModelUtils
from nvflare.fuel.utils import fobs

from flaretune.flare.transport import from_model, to_model
from flaretune.methods.message import Message


def through_nvflare(sent: Message) -> Message:
    """What arrives when NVFlare has sent it."""
    model = FLModelUtils.from_shareable(fobs.loads(serialised(sent)))
    return from_model(model)


def serialised(sent: Message) -> bytes:
    return fobs.dumps(FLModelUtils.to_shareable(to_model(sent)))
