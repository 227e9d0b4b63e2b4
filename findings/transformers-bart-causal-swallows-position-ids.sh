#!/usr/bin/env bash
# transformers 5.20.2: BartForCausalLM takes position_ids among its further keywords without a word and does not use
# them, so that a text that is padded on the left gets the positions of the padding.
# Seen (random weights, float32, CPU): the last token's logits of a text padded by two tokens, with attention mask and
# position_ids, are the same to the bit as without position_ids, and 0.18 from those of the text alone.
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
export HOME="$folder"
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.20.2
"$folder/venv/bin/python" - 2>/dev/null <<'PY'
import torch
from transformers import BartConfig, BartForCausalLM

torch.manual_seed(0)
small = {"d_model": 16, "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 32}
model = BartForCausalLM(BartConfig(vocab_size=64, max_position_embeddings=32, **small)).eval()
text, padded = torch.tensor([[5, 6, 7]]), torch.tensor([[1, 1, 5, 6, 7]])
mask, positions = torch.tensor([[0, 0, 1, 1, 1]]), torch.tensor([[0, 0, 0, 1, 2]])
with torch.no_grad():
    alone = model(input_ids=text).logits[0, -1]
    told = model(input_ids=padded, attention_mask=mask, position_ids=positions).logits[0, -1]
    untold = model(input_ids=padded, attention_mask=mask).logits[0, -1]
assert torch.equal(told, untold), "position_ids are used now"
apart = (told - alone).abs().max().item()
assert apart > 0.01, apart
print(f"position_ids make no difference; padded on the left, the logits are {apart:.2f} from those of the text alone")
PY
