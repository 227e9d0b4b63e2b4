#!/usr/bin/env bash
# transformers 5.20.2: FalconH1ForCausalLM multiplies embeddings by its embedding_multiplier where it is given
# input_ids, and not where it is given inputs_embeds; get_input_embeddings() gives them without it. (Gemma 3's module
# for input embeddings scales by itself, so that both ways agree there.)
# Seen (random weights, float32, CPU, multiplier 5): logits from get_input_embeddings()(ids) are 0.2 from those of the
# ids; multiplied by 5 first, they are equal.
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
export HOME="$folder"
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.20.2
"$folder/venv/bin/python" - 2>/dev/null <<'PY'
import torch
from transformers import FalconH1Config, FalconH1ForCausalLM

torch.manual_seed(0)
size = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
attention = {"num_attention_heads": 4, "num_key_value_heads": 2}
mamba = {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 8}
model = FalconH1ForCausalLM(FalconH1Config(**size, **attention, **mamba, embedding_multiplier=5.0)).eval()
ids = torch.tensor([[5, 6, 7]])
with torch.no_grad():
    embeddings = model.get_input_embeddings()(ids)
    by_ids, as_given, scaled = (
        model(**given).logits
        for given in ({"input_ids": ids}, {"inputs_embeds": embeddings}, {"inputs_embeds": 5.0 * embeddings})
    )
apart = (by_ids - as_given).abs().max().item()
assert apart > 0.01, apart
assert torch.allclose(by_ids, scaled, atol=1e-6), "the multiplier is applied to both now"
print(f"embeddings as given: {apart:.2f} from the logits of the ids; multiplied by hand: equal")
PY
