"""Pretrained language models as black boxes: texts in, label word logits out."""

import logging

# Where torchao is installed (--quantize), transformers imports it, and it and torch warn of what is nobody's fault: its
# kernels for GPUs that are not there (torchao 0.18), and how it registers an enumeration (torch 2.13).
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
