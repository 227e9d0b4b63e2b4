#!/usr/bin/env bash
# PEFT 0.21.2 with transformers 5.24.0 and accelerate 1.15.0: LoRA on layers that wait on disk gives NaN, and no error.
#
# Setting: a Llama with two layers, random weights, loaded with device_map="auto", a limit of memory that leaves no room for
# its layers, and an offload folder: it answers as it should. get_peft_model puts LoRA on it with its defaults.
# Seen: the adapters lie on the meta device, where they hold no numbers; a forward pass says nothing of it, and all logits
# are NaN. A new adapter should change nothing, since its B is zero.
#
# Why it matters here: --device auto_map lets layers wait in memory or on disk. FedBPT and the verbalizer, which need no
# adapters, go on with that; LP-FL refuses such a model in one sentence.
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
    before = model(input_ids=ids).logits
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM"))
    after = adapted(input_ids=ids).logits
places = {p.device.type for name, p in adapted.named_parameters() if "lora_" in name}
print("adapters are on", places)
print("logits that are numbers: before", int(before.isfinite().sum()), "after", int(after.isfinite().sum()), "of", after.numel())
assert before.isfinite().all() and places == {"meta"} and after.isnan().all(), "the behaviour has changed"
PYTHON
