from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from flaretune.data.load import Examples
from flaretune.errors import UserError
from flaretune.models.load import load_pretrained
from flaretune.models.prompt_settings import PromptSettings
from flaretune.models.prompted import embedding_std, initial_prompt, open_prompted_model
from flaretune.seeding import derive_seed
from flaretune.tasks.spec import load_task
from tests.models.asking import TEXTS
from tests.models.reference import causal_logits, masked_logits
from tests.tasks_for_tests import review_task

pytestmark = pytest.mark.usefixtures("models_read_once")

N_PROMPT, DIM = 4, 6
POINTS = np.random.default_rng(11).normal(size=(3, DIM))
EXAMPLES = Examples(tuple({"sentence": text} for text in TEXTS), np.zeros(len(TEXTS), dtype=np.int64))
EMBEDDINGS = {
    "roberta": ("roberta.embeddings.word_embeddings.weight", 1.0),
    "bert": ("bert.embeddings.word_embeddings.weight", 1.0),
    "llama": ("model.embed_tokens.weight", 1.0),
    "gpt2": ("transformer.wte.weight", 1.0),
    "gemma2": ("model.embed_tokens.weight", np.sqrt(32)),
    "gemma3": ("model.embed_tokens.weight", np.sqrt(32)),
}


def prompt_settings(mode: str = "add", **changes) -> PromptSettings:
    defaults = {
        "n_prompt_tokens": N_PROMPT,
        "intrinsic_dim": DIM,
        "cat_or_add": mode if mode in ("add", "cat") else "add",
        "prompt_position": mode if mode in ("prefix", "suffix") else "suffix",
        "init_prompt": "auto",
        "alpha": 1.0,
        "sigma": 2.0,
        "seed": 5,
        "zero_lm_bias": 1,
    }
    return PromptSettings(**{**defaults, **changes})


def open_tiny(folder, mode="add", spec=None, dtype="float32", batch_size=0, cache_mb=1, **changes):
    settings = prompt_settings(mode, **changes)
    where = {"dtype": dtype, "device": "cpu", "batch_size": batch_size, "cache_mb": cache_mb}
    return open_prompted_model(spec or load_task("sst2"), str(folder), settings, **where)


def word_embeddings(folder, family) -> np.ndarray:
    """As they enter the model, float64, from the checkpoint's file."""
    name, scale = EMBEDDINGS[family]
    return load_file(folder / "model.safetensors")[name].double().numpy() * scale


def label_ids(tokenizer, kind) -> list[int]:
    """As sst2.toml writes the words: bad and great, behind a blank for causal models."""
    if kind == "masked":
        return tokenizer.convert_tokens_to_ids(["bad", "great"])
    return [tokenizer(f"It was {word}", add_special_tokens=False)["input_ids"][-1] for word in ("bad", "great")]


# The whole way


@pytest.mark.parametrize(
    ("family", "mode", "init_prompt"),
    [
        ("roberta", "add", "auto"),
        ("roberta", "cat", "It was a warm"),
        ("bert", "add", "zeros"),
        ("bert", "cat", "zeros"),
        ("llama", "prefix", "auto"),
        ("llama", "suffix", "a moving"),
        ("gpt2", "suffix", "auto"),
        ("gemma3", "suffix", "It was a warm , clever"),
        ("gemma2", "prefix", "auto"),
    ],
)
def test_a_search_points_answers_are_those_of_its_prompt(tiny, family, mode, init_prompt):
    """The prompt by its formula from the checkpoint's file and the seed; the logits from the plain reference."""
    folder = tiny(family)
    prompted = open_tiny(folder, mode, init_prompt=init_prompt, batch_size=3)
    answers = prompted.black_box.label_logits(POINTS, prompted.register(EXAMPLES))
    assert prompted.mode == mode

    table = word_embeddings(folder, family)
    scale = 1.0 * table.std() / (np.sqrt(DIM) * 2.0)
    random = np.random.RandomState(derive_seed(5, "projection"))
    projection = random.standard_normal((N_PROMPT * 32, DIM)) * scale
    p0 = np.zeros((N_PROMPT, 32))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if init_prompt not in ("auto", "zeros"):
        ids = tokenizer(init_prompt, add_special_tokens=False)["input_ids"]
        p0 = table[(ids * N_PROMPT)[:N_PROMPT]]
    prompts = torch.tensor(p0 + (POINTS @ projection.T).reshape(3, N_PROMPT, 32), dtype=torch.float32)

    encoded = [prompted.encoder.encode(texts) for texts in EXAMPLES.texts]
    if mode in ("add", "cat"):
        fresh = AutoModelForMaskedLM.from_pretrained(folder).eval()
        fresh.get_output_embeddings().bias.data.zero_()
        expected = masked_logits(fresh, mode, prompts, encoded, label_ids(tokenizer, "masked"))
    else:
        fresh = AutoModelForCausalLM.from_pretrained(folder).eval()
        expected = causal_logits(fresh, prompts, encoded, label_ids(tokenizer, "causal"))
    np.testing.assert_allclose(answers, expected, rtol=0, atol=5e-5)
    assert answers.std(axis=0).mean() > 0.02


@pytest.mark.parametrize("zero_bias", [0, 1])
@pytest.mark.parametrize(("family", "mode"), [("roberta", "add"), ("roberta", "cat"), ("bert", "add")])
@torch.no_grad()
def test_zero_shot_logits_of_a_masked_model(tiny, family, mode, zero_bias):
    prompted = open_tiny(tiny(family), mode, zero_lm_bias=zero_bias)
    tokenizer = AutoTokenizer.from_pretrained(tiny(family))
    model = AutoModelForMaskedLM.from_pretrained(tiny(family)).eval()
    words = label_ids(tokenizer, "masked")
    expected = []
    for text in TEXTS:
        ids = tokenizer(f"{text} . It was {tokenizer.mask_token} .", return_tensors="pt")["input_ids"]
        place = ids[0].tolist().index(tokenizer.mask_token_id)
        expected.append(model(input_ids=ids).logits[0, place, words].numpy())
    if zero_bias:
        expected = expected - model.get_output_embeddings().bias[words].numpy()
    answers = prompted.zero_shot_logits(EXAMPLES)
    assert answers.shape == (len(TEXTS), 2)
    np.testing.assert_allclose(answers, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("mode", ["prefix", "suffix"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
@torch.no_grad()
def test_zero_shot_logits_of_a_causal_model(tiny, family, mode):
    prompted = open_tiny(tiny(family), mode)
    tokenizer = AutoTokenizer.from_pretrained(tiny(family))
    model = AutoModelForCausalLM.from_pretrained(tiny(family)).eval()
    words = label_ids(tokenizer, "causal")
    rows = [tokenizer(f"{text} It was", return_tensors="pt")["input_ids"] for text in TEXTS]
    expected = [model(input_ids=ids).logits[0, -1, words].numpy() for ids in rows]
    np.testing.assert_allclose(prompted.zero_shot_logits(EXAMPLES), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("family", "mode"), [("roberta", "add"), ("llama", "prefix"), ("gemma3", "suffix")])
def test_bfloat16_is_close_to_float32(tiny, family, mode):
    exact, rough = (
        open_tiny(tiny(family), mode, dtype=dtype).black_box.label_logits(POINTS, texts)
        for dtype in ("float32", "bfloat16")
        for texts in [open_tiny(tiny(family), mode, dtype=dtype).register(EXAMPLES)]
    )
    assert rough.dtype == np.float32
    difference = np.abs(exact - rough)
    assert 0 < difference.max() < 0.5
    assert difference.mean() < 0.05 * np.abs(exact).mean()
    assert np.corrcoef(exact.ravel(), rough.ravel())[0, 1] > 0.99


def test_the_same_seed_gives_the_same_answers_and_another_does_not(tiny):
    answers = []
    for seed in (1, 1, 2):
        prompted = open_tiny(tiny("gpt2"), "suffix", seed=seed)
        answers.append(prompted.black_box.label_logits(POINTS, prompted.register(EXAMPLES)))
    assert np.array_equal(answers[0], answers[1])
    assert np.abs(answers[0] - answers[2]).max() > 0.05


def test_texts_in_a_forward_pass_on_a_cpu(tiny):
    many = Examples(EXAMPLES.texts * 2, np.zeros(2 * len(TEXTS), dtype=np.int64))
    sizes = [len(batch) for batch in open_tiny(tiny("bert")).register(many).batches]
    assert sizes == [8, 6]
    assert [len(b) for b in open_tiny(tiny("bert"), batch_size=5).register(many).batches] == [5, 5, 4]


def test_opening_counts_no_forward_pass_and_keeps_no_cache(tiny):
    prompted = open_tiny(tiny("llama"), "suffix")
    assert prompted.black_box.example_forwards == 0
    assert None not in prompted.register(EXAMPLES).caches
    assert open_tiny(tiny("llama"), "suffix", cache_mb=0).register(EXAMPLES).caches == [None]


# What does not fit together


@pytest.mark.parametrize(("family", "mode"), [("roberta", "add"), ("gpt2", "suffix")])
def test_a_label_word_of_several_tokens(tiny, family, mode):
    spec = review_task(
        masked={"template": "{sentence} . It was {mask} .", "label_words": ["bad", "marvellous"]},
        causal={"template": "{sentence} It was", "label_words": [" bad", " marvellous"]},
    )
    with pytest.raises(UserError, match=r"label word ' ?marvellous' of task 'reviews' is not one token"):
        open_tiny(tiny(family), mode, spec)


@pytest.mark.parametrize(
    ("family", "mode", "limit"), [("roberta", "add", 128), ("bert", "cat", 128), ("llama", "suffix", 256)]
)
def test_a_prompt_that_does_not_fit(tiny, family, mode, limit):
    with pytest.raises(UserError, match=rf"no text fits: a prompt of n = {limit} tokens .* the limit is {limit}; "):
        open_tiny(tiny(family), mode, n_prompt_tokens=limit)


def test_a_prompt_that_fits_barely(tiny):
    """Texts are cut down to the few tokens that are left, and the model takes a row of its full length."""
    prompted = open_tiny(tiny("roberta"), "add", n_prompt_tokens=128 - 12)
    texts = prompted.register(EXAMPLES)
    assert max(len(example.ids) for batch in texts.batches for example in batch) == 128
    assert np.isfinite(prompted.black_box.label_logits(POINTS, texts)).all()


# σ_E and p₀


@pytest.mark.parametrize("family", EMBEDDINGS)
def test_embedding_std(tiny, family):
    model = load_pretrained(str(tiny(family)), "float32", "cpu").model
    assert embedding_std(model) == pytest.approx(word_embeddings(tiny(family), family).std(), rel=1e-6)


@pytest.mark.parametrize("family", ["bert", "gemma3"])
def test_embedding_std_of_a_large_vocabulary(tiny, family):
    folder = tiny(family, vocab_size=20_000)
    model = load_pretrained(str(folder), "float32", "cpu").model
    assert embedding_std(model) == pytest.approx(word_embeddings(folder, family).std(), rel=1e-6)


def p0(folder, mode, **changes):
    pretrained = load_pretrained(str(folder), "float32", "cpu")
    return initial_prompt(pretrained.model, pretrained.tokenizer, prompt_settings(mode, **changes), mode)


@pytest.mark.parametrize(
    ("family", "mode", "source"),
    [("roberta", "cat", "zeros"), ("roberta", "add", "auto"), ("llama", "prefix", "auto"), ("llama", "suffix", "auto")],
)
def test_a_prompt_that_starts_from_zeros(tiny, family, mode, source):
    assert p0(tiny(family), mode, init_prompt=source) is None


@pytest.mark.parametrize(
    ("family", "mode", "source"),
    [("roberta", "cat", "auto"), ("roberta", "add", "tokens"), ("gemma3", "suffix", "tokens")],
)
def test_a_prompt_that_starts_from_random_tokens(tiny, family, mode, source):
    folder = tiny(family)
    table = word_embeddings(folder, family)
    start = p0(folder, mode, init_prompt=source)
    assert start.dtype == torch.float32
    ids = np.random.RandomState(derive_seed(5, "initial prompt")).randint(len(table), size=N_PROMPT, dtype=np.int64)
    assert len(set(ids)) == N_PROMPT
    np.testing.assert_allclose(start, table[ids], rtol=1e-5, atol=1e-6)
    assert torch.equal(start, p0(folder, mode, init_prompt=source))
    assert not torch.equal(start, p0(folder, mode, init_prompt=source, seed=6))


def test_random_tokens_are_the_same_with_every_version_of_numpy(tiny):
    folder = tiny("gpt2", vocab_size=5000)
    expected = word_embeddings(folder, "gpt2")[[2290, 1540, 80, 1087, 2975]]
    start = p0(folder, "suffix", init_prompt="tokens", seed=42, n_prompt_tokens=5)
    np.testing.assert_allclose(start, expected, rtol=1e-6)


@pytest.mark.parametrize(("n", "words"), [(2, "It was"), (3, "It was great"), (7, "It was great It was great It")])
@pytest.mark.parametrize("family", ["bert", "gemma3"])
def test_a_prompt_that_starts_from_a_text(tiny, family, n, words):
    """Repeated or cut to n tokens."""
    folder = tiny(family)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(words, add_special_tokens=False)["input_ids"]
    assert len(ids) == n
    start = p0(folder, "add", init_prompt="It was great", n_prompt_tokens=n)
    np.testing.assert_allclose(start, word_embeddings(folder, family)[ids], rtol=1e-5, atol=1e-6)


def test_a_text_without_tokens(tiny):
    with pytest.raises(UserError, match=r"^--init_prompt '  ' holds no token: give zeros, tokens or a text$"):
        p0(tiny("bert"), "add", init_prompt="  ")
