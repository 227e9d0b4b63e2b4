#!/usr/bin/env bash
# datasets 5.2.0: one number in a column of JSON lines turns the texts of that column into what they spell: "007" becomes
# 7, "null" None and "[1, 2]" a list. Without the number all of them stay texts.
# Seen (load_dataset("json", …), pyarrow 26.0.1): ['fine', '007', 'null', '[1, 2]'] of four texts, and
# ['fine', 7, None, [1, 2], 7] of the same four with the number 7 behind them, whose feature is Json(decode=True).
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
export HOME="$folder"
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0 pyarrow==26.0.1
cd "$folder"
"$folder/venv/bin/python" - 2>/dev/null <<'PY'
import json
from pathlib import Path

from datasets import load_dataset

texts = ["fine", "007", "null", "[1, 2]"]
found = {}
for name, values in (("texts", texts), ("mixed", [*texts, 7])):
    Path(f"{name}.jsonl").write_text("".join(json.dumps({"text": value}) + "\n" for value in values), encoding="utf-8")
    rows = load_dataset("json", data_files=f"{name}.jsonl", split="train", cache_dir=name)
    found[name] = list(rows["text"])
    print(rows.features["text"], found[name])
assert found["texts"] == texts, found
assert found["mixed"] == ["fine", 7, None, [1, 2], 7], found
PY
