"""Pretrained language models as black boxes: texts in, label word logits out."""

import logging
import os

# oneDNN, which computes bfloat16 on a CPU, keeps what it has compiled for the last 1,024 shapes, and texts have many
# lengths: 230 MiB after three rounds of LP-FL's demo. It reads this once, before the first.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")

# Where torchao and bitsandbytes are installed (--quantize), transformers and PEFT import them, and they and torch warn
# of what is nobody's fault: torchao's kernels for GPUs that are not there (torchao 0.18), how it registers an
# enumeration (torch 2.13), and a kernel for some CPUs that is to be installed (bitsandbytes 0.50) and is not used here.
for _name in ("torchao", "torch.utils._pytree", "bitsandbytes.backends.cpu"):
    logging.getLogger(_name).setLevel(logging.ERROR)
