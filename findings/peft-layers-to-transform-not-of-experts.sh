#!/usr/bin/env bash
# PEFT 0.21.2 with transformers 5.20.2: `layers_to_transform` does not hold for the experts of a mixture.
#
# Setting: Qwen3-MoE with two layers, random weights. LoraConfig(target_modules=[q_proj, gate_proj, up_proj, down_proj],
# layers_to_transform=[1]): adapters in the second layer alone, says the documentation ("it will apply the adapter to the
# layer indices that are specified in this list").
# Seen: q_proj gets an adapter in layer 1 alone. The names of the experts' projections, which transformers 5 keeps as one
# fused parameter a layer, are turned into target_parameters, and get adapters in layer 0 too; without a warning about it.
#
# Why it matters here: flaretune computes the layers below --first_layer once for each text; an adapter that trains there
# would make that wrong. It is looked for, and refused.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.20.2 peft==0.21.2 numpy
cd "$folder"
OMP_NUM_THREADS=1 "$folder/venv/bin/python" - <<'PYTHON'
import warnings

import torch
from peft import LoraConfig, get_peft_model
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

warnings.simplefilter("ignore")
torch.manual_seed(0)
sizes = {"vocab_size": 99, "hidden_size": 32, "intermediate_size": 48, "moe_intermediate_size": 16}
heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "num_hidden_layers": 2}
model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**sizes, **heads, num_experts=4, num_experts_per_tok=2))
wanted = ["q_proj", "gate_proj", "up_proj", "down_proj"]
adapted = get_peft_model(model, LoraConfig(r=2, target_modules=wanted, layers_to_transform=[1]))
trained = {name.split(".layers.")[1] for name, p in adapted.named_parameters() if p.requires_grad}
attention = {name[0] for name in trained if "q_proj" in name}
experts = {name[0] for name in trained if "experts" in name}
print("layers whose q_proj has an adapter:", sorted(attention))
print("layers whose experts have one:", sorted(experts))
assert attention == {"1"} and experts == {"0", "1"}, "the behaviour has changed"
PYTHON
