#!/usr/bin/env bash
# PEFT 0.21.2 with transformers 5.24.0 and accelerate 1.15.0: a new LoRA adapter on layers that wait on disk changes what
# the model says, otherwise in each pass, and no error tells of it.
#
# Setting: a Llama with two layers, random weights, loaded with device_map="auto", a limit of memory that leaves no room for
# its layers, and an offload folder: it answers as it should, three times the same. Then get_peft_model with LoRA's defaults,
# whose B is zero, so that a new adapter changes nothing.
# Seen: the adapters lie on the meta device, where they hold no numbers. Forward passes raise nothing; their logits differ
# from the model's, here by 0.2 to 0.6, are NaN in some runs, and differ between passes over the same text.
#
# Why it matters here: --device auto_map lets layers wait in memory or on disk. FedBPT and the verbalizer, which put no
# adapters on a model, go on with that; LP-FL refuses such a model in one sentence (tests/models/test_split.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0 peft==0.21.2 \
    accelerate==1.15.0 numpy
cd "$folder"
OMP_NUM_THREADS=1 "$folder/venv/bin/python" - <<'PYTHON'
import warnings

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

warnings.simplefilter("ignore")
torch.manual_seed(0)
heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}
LlamaForCausalLM(LlamaConfig(vocab_size=100, hidden_size=32, intermediate_size=48, **heads)).save_pretrained("whole")
limit = {"device_map": "auto", "max_memory": {"cpu": 20_000}, "offload_folder": "waiting"}
model = LlamaForCausalLM.from_pretrained("whole", **limit)
ids = torch.tensor([[1, 2, 3]])
with torch.no_grad():
    before = [model(input_ids=ids).logits for _ in range(3)]
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM"))
    after = [adapted(input_ids=ids).logits for _ in range(3)]
places = {p.device.type for name, p in adapted.named_parameters() if "lora_" in name}
print("adapters are on", places)
print("largest change by a new adapter, pass by pass:", [float((one - before[0]).abs().max()) for one in after])
assert all(torch.equal(one, before[0]) for one in before), "the model itself is not repeatable"
changed = [not torch.allclose(one, before[0], atol=1e-5) for one in after]
assert places == {"meta"} and any(changed), "the behaviour has changed"
PYTHON
