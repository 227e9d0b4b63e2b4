#!/usr/bin/env bash
# transformers 5.20.2: Mamba2ForCausalLM takes past_key_values=DynamicCache() among its further keywords without a word
# and puts nothing into it (its own argument is called cache_params). Code that works for decoder-only models then goes
# on from an empty cache.
# Seen (random weights, float32, CPU): the cache has 0 layers after a forward pass with use_cache=True; the next token's
# logits behind two different texts are equal to the bit, and 1.5 apart where the texts are given again.
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
export HOME="$folder"
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.20.2
"$folder/venv/bin/python" - 2>/dev/null <<'PY'
import torch
from transformers import DynamicCache, Mamba2Config, Mamba2ForCausalLM

torch.manual_seed(0)
config = Mamba2Config(
    vocab_size=64, hidden_size=32, num_hidden_layers=2, num_heads=4, head_dim=16, state_size=8, n_groups=1, chunk_size=8
)
model = Mamba2ForCausalLM(config).eval()
texts, following = (torch.tensor([[5, 6, 7, 8]]), torch.tensor([[9, 10, 11, 12]])), torch.tensor([[3]])
with torch.no_grad():
    went_on = []
    for text in texts:
        cache = DynamicCache()
        model(input_ids=text, past_key_values=cache, use_cache=True)
        assert len(cache.layers) == 0, "it fills the cache now"
        went_on.append(model(input_ids=following, past_key_values=cache, use_cache=True).logits[0, -1])
    whole = [model(input_ids=torch.cat([text, following], dim=1)).logits[0, -1] for text in texts]
assert torch.equal(*went_on), "the texts are seen now"
apart = (whole[0] - whole[1]).abs().max().item()
assert apart > 0.1, apart
print(f"from the cache: equal logits behind two texts; from the whole texts: {apart:.2f} apart")
PY
