from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch
from peft import PeftModel
from pyarrow import parquet
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from flaretune.config.fedbpt import FedBPTConfig
from flaretune.data.load import Examples, load_file
from flaretune.errors import UserError
from flaretune.fedbpt.artifact import PromptArtifact, load_prompt, save_prompt
from flaretune.flare.fedbpt_client import set_up
from flaretune.lpfl.artifact import AdapterArtifact, save_adapter
from flaretune.predict import given_texts, open_adapter, open_prompt, score, softmax, texts_of_file
from flaretune.seeding import derive_seed
from tests.adapters_for_tests import random_adapter
from tests.learnable import write_reviews
from tests.models_for_tests import save_tiny_model
from tests.tasks_for_tests import pair_task, review_task

DIM = 12
SITES = ["a", "b"]
TEXTS = [{"sentence": text} for text in ("a moving and funny film", "the plot is dull", "a bright , lovely cast")]


def save_found_prompt(folder: Path, model: Path, data: Path, **options) -> tuple[Path, list]:
    """What a job with two sites would save for some search point, and these sites."""
    config = FedBPTConfig(
        model_name=str(model), dataset=str(data), dtype="float32", k_shot=4, intrinsic_dim=DIM, eval_clients="all",
        **{"n_prompt_tokens": 3, "seed": 5, "alpha": 2.0, "sigma": 0.5, **options},
    )  # fmt: skip
    sites, answers = zip(*(set_up(config, name, SITES) for name in SITES), strict=True)
    settings = answers[0].settings
    point = np.random.default_rng(1).standard_normal(DIM).astype(np.float32)
    file = folder / "best_prompt.safetensors"
    save_prompt(PromptArtifact(point, settings["task"], settings["options"], settings["model"], {}), file)
    return file, sites


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_reviews(tmp_path_factory.mktemp("data"), n_train=40, n_test=60)


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    return save_tiny_model("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory) -> Path:
    return save_tiny_model("gpt2", tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="module")
def roberta(tmp_path_factory) -> Path:
    return save_tiny_model("roberta", tmp_path_factory.mktemp("roberta"))


def test_probabilities_are_those_of_the_library_s_model_with_the_prompt_in_its_embeddings(tmp_path, llama, data):
    file, _ = save_found_prompt(tmp_path, llama, data, prompt_position="prefix")
    classifier = open_prompt(file, dtype="float32", device="cpu")
    found = classifier.probabilities(TEXTS)

    model, tokenizer = AutoModelForCausalLM.from_pretrained(llama), AutoTokenizer.from_pretrained(llama)
    embeddings = model.get_input_embeddings().weight.detach()
    point = load_prompt(file).point
    rng = np.random.RandomState(derive_seed(5, "projection"))
    scale = 2.0 * embeddings.double().std(correction=0).item() / (np.sqrt(DIM) * 0.5)
    projection = rng.standard_normal((3 * 32, DIM)) * scale
    prompt = torch.tensor((projection @ point).reshape(3, 32), dtype=torch.float32)
    words = [tokenizer.encode(word, add_special_tokens=False)[-1] for word in ("a bad", "a great")]
    for row, columns in zip(found, TEXTS, strict=True):
        ids = tokenizer(columns["sentence"] + " It was", return_tensors="pt").input_ids[0]
        rows = torch.cat([embeddings[ids[:1]], prompt, embeddings[ids[1:]]])[None]
        with torch.no_grad():
            logits = model(inputs_embeds=rows).logits[0, -1, words]
        np.testing.assert_allclose(row, torch.softmax(logits.double(), 0).numpy(), atol=2e-5)
    assert np.ptp(found[:, 0]) > 0.01  # the texts do matter


@pytest.mark.parametrize(
    ("family", "options"),
    [("llama", {"prompt_position": "suffix"}), ("roberta", {"cat_or_add": "add"}), ("roberta", {"cat_or_add": "cat"})],
)
def test_the_score_on_the_test_file_is_what_the_sites_counted(tmp_path, data, request, family, options):
    """Though the sites shared the texts out, and asked with other batches and cached texts."""
    file, sites = save_found_prompt(tmp_path, request.getfixturevalue(family), data, **options)
    point = load_prompt(file).point
    counted = sum(site.evaluate(point).evaluation.test for site in sites)
    classifier = open_prompt(file, dtype="float32", device="cpu")
    examples = load_file(classifier.spec, data / "validation.csv")
    probabilities = classifier.probabilities(examples.texts)
    result = score(classifier.spec, probabilities, examples.labels)
    assert (sum(result.correct_by_class), result.n) == tuple(counted)
    assert result.value == counted[0] / counted[1]
    assert result.n_by_class == (30, 30)
    assert 0 < result.value < 1


def test_answers_come_in_the_order_of_the_texts_one_by_one_or_together(tmp_path, llama, data):
    file, _ = save_found_prompt(tmp_path, llama, data)
    classifier = open_prompt(file, dtype="float32", device="cpu")
    texts = [{"sentence": " ".join(["a film"] * n)} for n in (9, 1, 30, 4, 2, 16, 3, 8, 5, 20, 7)]
    together = classifier.probabilities(texts)
    one_by_one = np.concatenate([classifier.probabilities([text]) for text in texts])
    np.testing.assert_allclose(together, one_by_one, atol=1e-5)
    np.testing.assert_allclose(together.sum(axis=1), 1)
    assert together.dtype == np.float64
    assert classifier.probabilities([]).shape == (0, 2)


def test_bfloat16_is_the_default_and_near_float32(tmp_path, llama, data):
    file, _ = save_found_prompt(tmp_path, llama, data)
    classifier = open_prompt(file, device="cpu")
    assert next(classifier.prompted.pretrained.model.model.parameters()).dtype == torch.bfloat16
    exact = open_prompt(file, dtype="float32", device="cpu")
    difference = classifier.probabilities(TEXTS) - exact.probabilities(TEXTS)
    assert 0 < np.abs(difference).max() < 0.1


def test_the_prompt_changes_the_answers_and_zero_shot_has_none(tmp_path, roberta, data):
    file, _ = save_found_prompt(tmp_path, roberta, data)
    classifier = open_prompt(file, dtype="float32", device="cpu")
    examples = load_file(classifier.spec, data / "validation.csv")
    with_prompt = classifier.probabilities(examples.texts)
    zero_shot = classifier.zero_shot(examples)
    assert zero_shot.shape == with_prompt.shape == (60, 2)
    assert np.abs(zero_shot - with_prompt).max() > 0.05
    other = open_prompt(file, dtype="float32", device="cpu")
    np.testing.assert_array_equal(other.zero_shot(examples), zero_shot)
    np.testing.assert_array_equal(other.probabilities(examples.texts), with_prompt)


def test_a_model_elsewhere_is_used_if_it_is_of_the_same_shape(tmp_path, llama, data):
    file, _ = save_found_prompt(tmp_path, llama, data)
    moved = save_tiny_model("llama", tmp_path / "moved")
    here = open_prompt(file, dtype="float32", device="cpu")
    there = open_prompt(file, model_name=str(moved), dtype="float32", device="cpu")
    np.testing.assert_array_equal(here.probabilities(TEXTS), there.probabilities(TEXTS))


def test_another_model_is_refused(tmp_path, llama, roberta, data):
    file, _ = save_found_prompt(tmp_path, llama, data)
    wider = save_tiny_model("llama", tmp_path / "wider", hidden_size=64)
    with pytest.raises(UserError, match=rf"--model_name {wider}: its hidden size is 64, .*{llama}, where it is 32"):
        open_prompt(file, model_name=str(wider), device="cpu")
    with pytest.raises(UserError, match=r"its kind is masked, but the prompt was found with .*, where it is causal"):
        open_prompt(file, model_name=str(roberta), device="cpu")
    with pytest.raises(UserError, match="--model_name /absent/model: there is no such folder"):
        open_prompt(file, model_name="/absent/model")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": None}, r"another version of flaretune \(.*alpha"),
        ({"n_prompt_tokens": "3"}, "--n_prompt_tokens '3': must be of type int"),
        ({"n_prompt_tokens": 0}, "--n_prompt_tokens 0: must be at least 1"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_the_model_is_loaded(tmp_path, llama, data, changes, message):
    file, _ = save_found_prompt(tmp_path, llama, data)
    artifact = load_prompt(file)
    options = {k: v for k, v in {**artifact.options, **changes}.items() if v is not None}
    save_prompt(PromptArtifact(artifact.point, artifact.task, options, artifact.model, {}), file)
    with pytest.raises(UserError, match=message):
        open_prompt(file, model_name="/absent/model")


# ---- adapters ----


def plain_model(folder: Path) -> torch.nn.Module:
    auto_class = AutoModelForMaskedLM if folder.name.startswith("roberta") else AutoModelForCausalLM
    return auto_class.from_pretrained(folder, dtype=torch.float32).eval()


def log_odds(model: torch.nn.Module, folder: Path) -> np.ndarray:
    """How much more a model of the library's own says great than bad, for each of TEXTS, one by one."""
    tokenizer, found, is_masked = AutoTokenizer.from_pretrained(folder), [], folder.name.startswith("roberta")
    words = ("bad", "great") if is_masked else ("a bad", "a great")  # as the task writes them, behind a blank or not
    bad, great = (tokenizer.encode(word, add_special_tokens=False)[-1] for word in words)
    for columns in TEXTS:
        if is_masked:
            ids = tokenizer(f"{columns['sentence']} . It was {tokenizer.mask_token} .", return_tensors="pt").input_ids
            place = ids[0].tolist().index(tokenizer.mask_token_id)
        else:
            ids, place = tokenizer(f"{columns['sentence']} It was", return_tensors="pt").input_ids, -1
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, place]
        found.append((logits[great] - logits[bad]).item())
    return np.array(found)


def odds_of(probabilities: np.ndarray) -> np.ndarray:
    return np.log(probabilities[:, 1]) - np.log(probabilities[:, 0])


def save(artifact: AdapterArtifact, folder: Path) -> Path:
    save_adapter(artifact, folder / "best_adapter")
    return folder / "best_adapter"


EXAMPLES = Examples(tuple(TEXTS), np.array([1, 0, 1]))


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("llama", {}),
        ("gpt2", {}),
        ("roberta", {}),
        ("llama", {"freeze_a": 1, "lora_rank": 2, "lora_alpha": 3.0}),  # A is another than what the seed draws
        ("llama", {"target_modules": "all-linear", "lora_dropout": 0.5, "gradient_checkpointing": 1}),
        ("gpt2", {"target_modules": "all-linear"}),
        ("roberta", {"target_modules": "all-linear"}),
        ("roberta", {"target_modules": "key,attention.output.dense"}),
    ],
)
def test_peft_alone_gives_the_logits_of_an_adapter(tmp_path, request, family, options):
    model = request.getfixturevalue(family)
    folder = save(random_adapter(model, review_task(), **options), tmp_path)
    classifier = open_adapter(folder, dtype="float32", device="cpu")
    expected = log_odds(PeftModel.from_pretrained(plain_model(model), folder).eval(), model)
    answers = classifier.tuned.label_model.answers(classifier.tuned.label_model.encode(TEXTS))
    np.testing.assert_allclose(answers[:, 1] - answers[:, 0], expected, atol=2e-5)
    np.testing.assert_allclose(odds_of(classifier.probabilities(TEXTS)), expected, atol=2e-5)
    without = log_odds(plain_model(model), model)
    assert np.abs(expected - without).max() > 0.05
    np.testing.assert_allclose(odds_of(classifier.zero_shot(EXAMPLES)), without, atol=2e-5)
    np.testing.assert_allclose(odds_of(classifier.probabilities(TEXTS)), expected, atol=2e-5)  # as before


@pytest.mark.parametrize("family", ["llama", "gpt2", "roberta"])
def test_a_wholly_trained_model_answers_as_one_with_these_parameters(tmp_path, request, family):
    folder = request.getfixturevalue(family)
    artifact = random_adapter(folder, review_task(), tuning="full")
    classifier = open_adapter(save(artifact, tmp_path), dtype="float32", device="cpu")
    model = plain_model(folder)
    without = log_odds(model, folder)
    state = {name: torch.from_numpy(values) for name, values in artifact.arrays.items()}
    assert not model.load_state_dict(state, strict=False).unexpected_keys
    expected = log_odds(model, folder)
    np.testing.assert_allclose(odds_of(classifier.probabilities(TEXTS)), expected, atol=2e-5)
    assert np.abs(expected - without).max() > 0.05
    np.testing.assert_allclose(odds_of(classifier.zero_shot(EXAMPLES)), without, atol=2e-5)
    np.testing.assert_allclose(odds_of(classifier.probabilities(TEXTS)), expected, atol=2e-5)


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_an_adapter_in_bfloat16_answers_nearly_as_in_float32(tmp_path, llama, tuning):
    folder = save(random_adapter(llama, review_task(), tuning=tuning), tmp_path)
    default, exact = (open_adapter(folder, device="cpu", **dtype) for dtype in ({}, {"dtype": "float32"}))
    difference = default.probabilities(TEXTS) - exact.probabilities(TEXTS)
    assert 0 < np.abs(difference).max() < 0.1
    assert exact.probabilities([]).shape == (0, 2)
    assert exact.probabilities(TEXTS).dtype == np.float64


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_an_adapter_of_another_model_is_refused(tmp_path, llama, roberta, tuning):
    folder = save(random_adapter(llama, review_task(), tuning=tuning), tmp_path)
    others = {
        "wide": save_tiny_model("llama", tmp_path / "wide", hidden_size=64),
        "deep": save_tiny_model("llama", tmp_path / "deep", num_hidden_layers=3),
        "heads": save_tiny_model("llama", tmp_path / "heads", num_key_value_heads=4),
    }
    messages = {
        roberta: rf"{roberta}: its kind is masked, but the adapter was found with {llama}, where it is causal",
        others["wide"]: rf"its hidden size is 64, but the adapter was found with {llama}, where it is 32; give that",
        others["deep"]: r"layers\.2\.\S+ is of shape \(.*\) in this model and absent in .*best_adapter; give the model",
        others[
            "heads"
        ]: r"layers\.0\.\S+ is of shape \(32, .*\) in this model and of shape \(16, .*\) in .*best_adapter",
        "/absent/model": rf"{folder}: --model_name /absent/model: there is no such folder",
    }
    for model, message in messages.items():
        with pytest.raises(UserError, match=message) as refused:
            open_adapter(folder, model_name=str(model), device="cpu")
        assert f"--model_name {model}" in str(refused.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: {n: v for n, v in a.items() if "layers.1.self_attn.q_proj.lora_A" not in n}, "1.*lora_A.*absent in"),
        (
            lambda a: {**a, "base_model.more": np.ones(3, np.float32)},
            r"base_model\.more is absent in this model and of",
        ),
        (lambda a: {n: v[:4] if "lora_A" in n else v for n, v in a.items()}, r"shape \(8, 32\) .* shape \(4, 32\)"),
        (lambda a: {n: v.T if "lora_B" in n else v for n, v in a.items()}, r"shape \(\d+, 8\) .* shape \(8, \d+\)"),
    ],
)
def test_an_adapter_with_other_arrays_than_its_options_give_is_refused(tmp_path, llama, change, message):
    artifact = random_adapter(llama, review_task())
    folder = save(replace(artifact, arrays=change(artifact.arrays)), tmp_path)
    with pytest.raises(UserError, match=message):
        open_adapter(folder, device="cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora_rank": None}, r"best_adapter was written by another version of flaretune \(.*lora_rank"),
        ({"lora_rank": "8"}, "--lora_rank '8': must be of type int"),
        ({"lora_alpha": 0.0}, "--lora_alpha 0.0: must be above 0"),
    ],
)
def test_options_of_an_adapter_that_do_not_fit_are_refused_before_the_model_is_loaded(
    tmp_path, llama, changes, message
):
    artifact = random_adapter(llama, review_task())
    options = {k: v for k, v in {**artifact.options, **changes}.items() if v is not None}
    folder = save(replace(artifact, options=options), tmp_path)
    with pytest.raises(UserError, match=message):
        open_adapter(folder, model_name="/absent/model")


def test_target_modules_that_another_model_lacks_are_named_with_the_folder_that_wants_them(tmp_path, llama, gpt2):
    folder = save(random_adapter(llama, review_task(), target_modules="q_proj"), tmp_path)
    with pytest.raises(UserError, match=f"{folder}: --target_modules q_proj: no layer of this model has that name"):
        open_adapter(folder, model_name=str(gpt2), device="cpu")


# ---- scores and texts ----


def test_softmax_of_large_and_small_logits():
    np.testing.assert_allclose(softmax(np.array([[0.0, np.log(3.0)], [1000.0, 1000.0]])), [[0.25, 0.75], [0.5, 0.5]])


def test_score_counts_by_class():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7], [0.1, 0.9]])  # says 0 1 0 1 1
    result = score(review_task(), probabilities, np.array([0, 1, 1, 0, 1]))
    assert (result.metric, result.value, result.n) == ("accuracy", 0.6, 5)
    assert (result.n_by_class, result.correct_by_class) == ((2, 3), (1, 2))
    json.dumps(result.__dict__)


def test_score_uses_the_task_s_metric():
    spec = review_task(metric="f1", positive_class=1)
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])  # says 0 1 0 1
    result = score(spec, probabilities, np.array([0, 1, 1, 0]))
    assert result.metric == "f1"
    assert result.value == 2 * 1 / (2 * 1 + 1 + 1)  # one true positive, one false, one missed


def test_score_of_a_file_without_one_class():
    result = score(pair_task(), np.eye(3)[[0, 0]], np.array([0, 1]))
    assert (result.n_by_class, result.correct_by_class) == ((1, 1, 0), (1, 0, 0))


PAIRS = [{"premise": "He sleeps, deeply", "hypothesis": "He is awake"}, {"premise": "x", "hypothesis": "y"}]


def write(file: Path, rows: list[dict]) -> Path:
    if file.suffix == ".csv":
        with file.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_texts_of_a_file_need_no_label_and_leave_other_columns_alone(tmp_path, suffix):
    file = write(tmp_path / f"texts.{suffix}", [{"id": n, **row} for n, row in enumerate(PAIRS)])
    assert texts_of_file(pair_task(), file) == PAIRS


def test_lines_of_a_text_file(tmp_path):
    file = tmp_path / "texts.txt"
    file.write_bytes("\ufeffa film, “good”\r\n\r\n  \n another \u2028 one".encode())
    assert texts_of_file(review_task(), str(file)) == [
        {"sentence": "a film, “good”"},
        {"sentence": " another \u2028 one"},
    ]


def test_texts_of_the_command_line():
    assert given_texts(review_task(), ["a", "b"]) == [{"sentence": "a"}, {"sentence": "b"}]


@pytest.mark.parametrize(
    ("spec", "name", "content", "message"),
    [
        (
            pair_task(),
            "t.txt",
            b"one\n",
            "task 'pairs' has the text columns premise, hypothesis, .* CSV, JSONL or Parquet",
        ),
        (review_task(), "t.txt", b"caf\xe9\n", "t.txt is not UTF-8 at byte 3"),
        (review_task(), "t.txt", b" \n\n", "t.txt has no text; give at least one"),
        (review_task(), "t.txt", None, r"t.txt cannot be read \(No such file or directory\)"),
        (review_task(), "t.csv", b'sentence\na\n" "\n', "text 2 of .*t.csv is ' ' in column 'sentence'"),
        (review_task(), "t.csv", b"sentence\n", "t.csv has no text; give at least one"),
        (review_task(), "t.csv", b"text\na\n", "t.csv has no column 'sentence'"),
        (review_task(), "t.jsonl", b'{"sentence": 5}\n', "text 1 of .*t.jsonl is 5 in column 'sentence'"),
        (review_task(), "t.docx", b"", r"t.docx has no known format; its name must end in .csv"),
        (review_task(), "t.csv", None, "t.csv does not exist"),
    ],
)
def test_files_that_hold_no_texts_are_refused(tmp_path, spec, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        texts_of_file(spec, tmp_path / name)


def test_texts_that_are_no_texts_are_refused():
    with pytest.raises(
        UserError, match="text 2 of the command line is '' in column 'sentence'; every row needs a text"
    ):
        given_texts(review_task(), ["a", ""])
    with pytest.raises(UserError, match="task 'pairs' has the text columns premise, hypothesis, so a text alone"):
        given_texts(pair_task(), ["a"])
