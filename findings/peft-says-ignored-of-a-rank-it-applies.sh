#!/usr/bin/env bash
# PEFT 0.21.2 with transformers 5.24.0: a warning says that a rank is ignored, which is applied, and which nobody gave.
#
# Setting: Qwen3-MoE with one layer, random weights; LoraConfig(r=4, target_modules="all-linear"), no rank_pattern.
# Seen: "The following rank_pattern keys did not match any targeted module and were ignored: ['.*\\.gate_up_proj']", and
# the same of alpha_pattern. PEFT has put both into the configuration itself, for gate and up are one fused parameter of
# all experts, which is to have twice the rank. It has: 4 experts with rank 8 each, where down_proj has 4 with rank 4.
#
# Why it matters here: flaretune shows what a library warns of; whoever reads this looks for a rank that was not kept.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0 peft==0.21.2 numpy
cd "$folder"
OMP_NUM_THREADS=1 "$folder/venv/bin/python" - <<'PYTHON'
import warnings

import torch
from peft import LoraConfig, get_peft_model
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

torch.manual_seed(0)
sizes = {"vocab_size": 99, "hidden_size": 32, "intermediate_size": 48, "moe_intermediate_size": 16}
heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "num_hidden_layers": 1}
model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**sizes, **heads, num_experts=4, num_experts_per_tok=2))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
said = [str(w.message) for w in caught if "rank_pattern" in str(w.message)]
shapes = {name: tuple(p.shape) for name, p in adapted.named_parameters() if p.requires_grad and "experts" in name}
print("warned:", *said, sep="\n  ")
for name, shape in shapes.items():
    print(name.split(".layers.")[1], shape)
rows = {"gate_up": [s[0] for n, s in shapes.items() if "base_layer.lora_A" in n]}
rows["down"] = [s[0] for n, s in shapes.items() if "experts.lora_A" in n]
print("rows of A:", rows)
assert len(said) == 1 and "were ignored" in said[0] and "gate_up_proj" in said[0], "the behaviour has changed"
assert rows == {"gate_up": [4 * 8], "down": [4 * 4]}, "the behaviour has changed"
PYTHON
