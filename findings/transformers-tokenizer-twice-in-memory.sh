#!/usr/bin/env bash
# transformers 5.24.0: a loaded tokenizer holds its whole vocabulary and all merges a second time, as Python objects.
#
# Setting: a GemmaTokenizer of 475,260 pieces made by 475,228 merges (all words of up to four small letters; Gemma 3's
# has 262,144 and 514,906), saved and loaded with AutoTokenizer.
# Seen: what the tokenizers library made of them is in its own memory, and all look-ups go there. But the dictionary and
# the list of pairs that it was made from stay as `_vocab` and `_merges`, which no method of the class reads again: 104
# MiB of Python objects here, 168 MiB of a process's memory with Gemma 3's. Taken off, it encodes and saves as before.
#
# Why it matters here: several clients of a simulator are as many processes on one machine; flaretune takes them off.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.24.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import filecmp
import itertools
import string
import tracemalloc

from tokenizers import Tokenizer
from transformers import AutoTokenizer, GemmaTokenizer

letters = string.ascii_lowercase
merges = [("".join(w[:-1]), w[-1]) for n in (2, 3, 4) for w in itertools.product(letters, repeat=n)]
pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *letters, *(a + b for a, b in merges)]
GemmaTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges).save_pretrained("made")
n_pieces, n_merges = len(pieces), len(merges)
del pieces, merges

tracemalloc.start()
alone = Tokenizer.from_file("made/tokenizer.json")
in_python_alone = tracemalloc.get_traced_memory()[0] / 2**20
tokenizer = AutoTokenizer.from_pretrained("made")
in_python = tracemalloc.get_traced_memory()[0] / 2**20 - in_python_alone
tracemalloc.stop()
held = {name: len(vars(tokenizer).get(name, ())) for name in ("_vocab", "_merges")}
print(f"Python objects: {in_python_alone:.1f} MiB of tokenizers.Tokenizer, {in_python:.1f} MiB of {type(tokenizer).__name__}")
print("it holds", held)

before = tokenizer("two words")["input_ids"]
vars(tokenizer).pop("_vocab", None), vars(tokenizer).pop("_merges", None)
after = tokenizer("two words")["input_ids"]
tokenizer.save_pretrained("without")
same_file = filecmp.cmp("made/tokenizer.json", "without/tokenizer.json", shallow=False)
print("without them it encodes the same:", before == after, "and saves the same tokenizer.json:", same_file)
assert in_python_alone < 1 and in_python > 50, "the behaviour has changed"
assert held == {"_vocab": n_pieces, "_merges": n_merges}, "the behaviour has changed"
assert before == after and same_file, "the behaviour has changed"
PYTHON
