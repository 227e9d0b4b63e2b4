#!/usr/bin/env bash
# transformers 5.24.0: Llama4ForConditionalGeneration given a text alone, without an image, raises AttributeError: its
# forward reads `image_outputs` of what the language model returns, which has no such field. In 5.20.2 the same text
# gives logits.
# Seen (random weights, float32, CPU): "'MoeCausalLMOutputWithPast' object has no attribute 'image_outputs'".
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
export HOME="$folder"
python3 -m venv "$folder/venv"
cat > "$folder/text.py" <<'PY'
import torch
import transformers
from transformers import Llama4Config, Llama4ForConditionalGeneration

torch.manual_seed(0)
sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
text = {"vocab_size": 64, "num_key_value_heads": 2, "head_dim": 8, "intermediate_size_mlp": 32, "num_local_experts": 2}
vision = {"image_size": 28, "patch_size": 14, "vision_output_dim": 16, "projector_input_dim": 16}
model = Llama4ForConditionalGeneration(
    Llama4Config(text_config={**sizes, **text, "pad_token_id": 0}, vision_config={**sizes, **vision})
).eval()
try:
    with torch.no_grad():
        said = tuple(model(input_ids=torch.tensor([[5, 6, 7]])).logits.shape)
except AttributeError as error:
    said = str(error)
print(transformers.__version__, said)
PY
for version in 5.20.2 5.24.0; do
  "$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 "transformers==$version"
  "$folder/venv/bin/python" "$folder/text.py" 2>/dev/null | tee -a "$folder/said"
done
grep -qx "5.20.2 (1, 3, 64)" "$folder/said"
grep -qx "5.24.0 'MoeCausalLMOutputWithPast' object has no attribute 'image_outputs'" "$folder/said"
