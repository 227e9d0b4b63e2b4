"""What `tasks check` says of a task without label words: which method it is for, and the words that one finds."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer, RobertaForMaskedLM

from flaretune.authoring.check import check_task
from flaretune.cli.main import main
from flaretune.data.load import load_split
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.tasks.spec import load_task
from tests.authoring.tickets import WORDS, write_task, write_tickets
from tests.models_for_tests import save_tiny_model

NAMED = 'label_words = [" fine", " urgent"]'
AUTO = (NAMED, 'label_words = "auto"')
SMALL = FedBPTConfig(dtype="float32", device="cpu")
ABOUT = "the verbalizer method (jobs/verbalizer_job.py) learns the words; FedBPT and LP-FL need label words"


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {family: str(save_tiny_model(family, folder / family, words=WORDS)) for family in ("roberta", "gpt2")}


def run(capsys, *argv) -> tuple[int, str, str]:
    status = main(["tasks", "check", *map(str, argv)])
    return (status, *capsys.readouterr())


def log_probs_of(model: str, prompts: list[str], is_masked: bool) -> np.ndarray:
    """Of every token at the answer position, by transformers alone, float64 (N, vocabulary)."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = (AutoModelForMaskedLM if is_masked else AutoModelForCausalLM).from_pretrained(model).eval()
    found = []
    for prompt in prompts:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        position = (ids[0] == tokenizer.mask_token_id).nonzero()[0, 0] if is_masked else -1
        with torch.no_grad():
            found.append(torch.log_softmax(network(ids).logits[0, position].double(), dim=-1).numpy())
    return np.array(found)


@pytest.mark.parametrize("family", ["roberta", "gpt2"])
def test_the_top_words_of_a_class_are_those_that_separate_it_most(capsys, tmp_path, models, family):
    file = write_task(tmp_path, AUTO)
    write_tickets(tmp_path / "tickets", n_train=20)  # 10 of each class, all of which are used
    tokenizer = AutoTokenizer.from_pretrained(models[family])
    train = load_split(load_task(str(file)), "train")
    form = "{subject} . {body} . It is<mask> ." if family == "roberta" else "{subject} . {body} It is"
    values = log_probs_of(models[family], [form.format(**text) for text in train.texts], family == "roberta")
    low, high = values[train.labels == 0], values[train.labels == 1]
    middle = (low.mean(axis=0) + high.mean(axis=0)) / 2
    between = ((low.mean(axis=0) - middle) ** 2 + (high.mean(axis=0) - middle) ** 2) / 2
    ratio = between / ((low.var(axis=0) + high.var(axis=0)) / 2)
    ratio[tokenizer.all_special_ids] = 0
    learned = check_task(str(file), models[family], config=SMALL).learned
    assert (learned.texts, learned.templates) == ({"low": 10, "high": 10}, 1)
    for label, is_own in (
        ("low", low.mean(axis=0) > high.mean(axis=0)),
        ("high", high.mean(axis=0) > low.mean(axis=0)),
    ):
        best = np.argsort(-np.where(is_own, ratio, -1))[:8]
        found = learned.by_class[label]
        assert [word.word for word in found] == [tokenizer.decode([token]) for token in best]
        np.testing.assert_allclose([word.separation for word in found], ratio[best], rtol=1e-3)

    status, out, err = run(capsys, file, "--model_name", models[family], "--dtype", "float32", "--device", "cpu")
    assert (status, err) == (0, "")
    assert ABOUT in out
    first = learned.by_class["high"][0]
    assert re.search(rf"label high +{re.escape(repr(first.word))} \({first.separation:.3g}\), ", out)
    assert "<<label word>>" in out  # in place of a word of the class
    assert "prompt" not in out


def test_at_most_16_texts_of_each_class_are_drawn_and_the_seed_says_which(tmp_path, models):
    file = write_task(tmp_path, AUTO)
    write_tickets(tmp_path / "tickets", n_train=80)
    config = [FedBPTConfig(dtype="float32", device="cpu", seed=seed) for seed in (1, 1, 2)]
    first, again, other = (check_task(str(file), models["gpt2"], config=c).learned for c in config)
    assert first.texts == {"low": 16, "high": 16}
    assert first == again
    assert first != other


def test_templates_without_a_field_in_common_are_all_used(tmp_path, models):
    changes = (("{subject} . {body} . It is {mask} .", "{subject} . It is {mask} ."), AUTO)
    file = write_task(tmp_path, *changes, ("[causal]", 'templates = ["{body} . All in all {mask}"]\n\n[causal]'))
    report = check_task(str(file), models["roberta"], config=SMALL)
    assert (report.mistakes, report.learned.templates) == ((), 2)
    for words in report.learned.by_class.values():
        found = [word.word for word in words if word.word != "\N{REPLACEMENT CHARACTER}"]  # of several tokens
        assert len(set(found)) == len(found) > 0  # a word once, whichever template it is best in


def test_three_classes_have_words_of_their_own(tmp_path, models):
    file = write_task(tmp_path, AUTO, ('["low", "high"]', '["low", "high", "none"]'))
    with (tmp_path / "tickets" / "train.csv").open("a") as stream:
        stream.writelines(f'"the team wins","News {i}",none\n' for i in range(12))
    by_class = check_task(str(file), models["gpt2"], config=SMALL).learned.by_class
    assert list(by_class) == ["low", "high", "none"]
    assert all(by_class.values())


def test_with_a_method_that_needs_label_words_their_lack_is_a_mistake_at_its_line(capsys, tmp_path, models):
    file = write_task(tmp_path, AUTO)
    for flags, lines in (((), (9, 13)), (("--model_name", models["gpt2"]), (13,))):
        for method, title in (("fedbpt", "FedBPT"), ("lpfl", "LP-FL")):
            status, out, err = run(capsys, file, "--method", method, *flags)
            assert status == 1
            *told, _ = err.splitlines()
            assert len(told) == len(lines)
            for line, mistake in zip(lines, told, strict=True):
                assert mistake.startswith(f'error: {file}:{line}: label_words = "auto" is for the verbalizer method')
                assert f"{title} needs label words" in mistake
            assert "words of a learned verbalizer" not in out
    assert run(capsys, file, "--method", "verbalizer")[0] == 0


def test_words_for_one_kind_of_model_are_words_for_it(capsys, tmp_path, models):
    causal = '[causal]\ntemplate = "{subject} . {body} It is"\n'
    file = write_task(tmp_path, (causal + NAMED, causal + AUTO[1]))
    assert run(capsys, file, "--method", "fedbpt")[0] == 0
    assert run(capsys, file, "--method", "fedbpt", "--model_name", models["roberta"])[0] == 0
    status, _, err = run(capsys, file, "--method", "fedbpt", "--model_name", models["gpt2"])
    assert (status, "FedBPT needs label words" in err) == (1, True)


def test_the_method_verbalizer_shows_words_beside_those_that_a_task_names(capsys, tmp_path, models):
    file = write_task(tmp_path)
    flags = ("--model_name", models["roberta"], "--dtype", "float32", "--device", "cpu", "--json")
    told = [json.loads(run(capsys, file, *flags, *more)[1]) for more in ((), ("--method", "verbalizer"))]
    assert [(one["auto"], bool(one["learned"])) for one in told] == [(False, False), (False, True)]
    assert [one["model"]["n_prompt_tokens"] for one in told] == [50, 0]


def test_without_data_it_is_said_what_would_show_words(capsys, tmp_path, models):
    file = write_task(tmp_path, AUTO, ('path = "tickets"', 'path = "elsewhere"'))
    status, out, _ = run(capsys, file, "--model_name", models["gpt2"])
    assert status == 0
    assert "with --data the words are shown" in out


def test_zero_shot_needs_label_words(capsys, tmp_path, models):
    file = write_task(tmp_path, AUTO)
    status, _, err = run(capsys, file, "--model_name", models["gpt2"], "--device", "cpu", "--zero_shot")
    assert status == 1
    assert "--zero_shot needs label words" in err


def test_texts_that_are_all_alike_are_a_sentence_beside_the_report(capsys, tmp_path, models):
    file = write_task(tmp_path, AUTO)
    rows = [f"the same,every time,{label}" for label in ("low", "high") * 4]
    (tmp_path / "tickets" / "train.csv").write_text("\n".join(["subject,body,priority", *rows]) + "\n")
    status, out, err = run(capsys, file, "--model_name", models["gpt2"], "--dtype", "float32", "--device", "cpu")
    assert status == 1
    assert "example 1: " in out
    assert err.startswith("error: no word's log-probability differs between the clients' texts")


def test_a_model_without_an_output_embedding_is_a_sentence_beside_the_report(capsys, monkeypatch, tmp_path, models):
    monkeypatch.setattr(RobertaForMaskedLM, "get_output_embeddings", lambda self: None)
    flags = ("--model_name", models["roberta"], "--dtype", "float32", "--device", "cpu")
    status, out, err = run(capsys, write_task(tmp_path, AUTO), *flags)
    assert status == 1
    assert "example 1: " in out
    assert "RobertaForMaskedLM gives no log-probabilities of chosen words" in err


def test_fewer_labels_than_classes_are_a_mistake(capsys, tmp_path, models):
    file = write_task(tmp_path, AUTO, ('["low", "high"]', '["low", "high", "none"]'))
    status, out, err = run(capsys, file, "--model_name", models["gpt2"])
    assert status == 1
    assert "has the label 'none'" in err
    assert "words of a learned verbalizer" not in out
