"""What NVFlare's server averages: a model's adapters alone."""

from __future__ import annotations

from typing import Any

import torch
from peft import get_peft_model_state_dict

from beside.plain import adapted, work


class Adapters(torch.nn.Module):
    """Stands for the model at the server, with the adapters as its only parameters."""

    def state_dict(self, *_: Any, **__: Any) -> dict[str, torch.Tensor]:
        return dict(get_peft_model_state_dict(adapted(work())))
