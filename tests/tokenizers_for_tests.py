"""Small tokenizers of five families, made here in milliseconds, the same in every process.

Each is of the class that the family's real models use, so it can be saved beside a small model and comes back from
``AutoTokenizer.from_pretrained``. Every word of ``SENTENCES`` is one token; the families that tell `` great`` from
``great`` know the words of ``LABEL_WORDS``, and those they are given, in both forms.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    BertTokenizerFast,
    GPT2TokenizerFast,
    LlamaTokenizerFast,
    PreTrainedTokenizerFast,
    RobertaTokenizerFast,
    XLMRobertaTokenizerFast,
)

LABEL_WORDS = ("bad", "great", "terrible", "Yes", "No", "Maybe")
TOPICS = ("World", "Sports", "Business", "Tech")
THINGS = (
    *("Company", "Education", "Artist", "Athlete", "Office", "Transportation", "Building", "Natural", "Village"),
    *("Animal", "Plant", "Album", "Film", "Written"),
)

SENTENCES = (
    "a moving and funny film . It was great .",
    "the plot is dull , slow and far too long .",
    "It was a warm , clever and honest story !",
    "this movie is an awful mess from start to end .",
    "what a bright , lovely cast ; every scene works .",
    "I was bored : nothing happens and nobody cares ?",
    "a bad day , a great night and a terrible morning .",
    "Yes , she said . No , he said . Maybe , they said .",
    "News : the team wins again . Sports and World .",
)

_VOCABULARY = 5000  # more than there is to merge, so every word becomes one token


def training_texts(words: Sequence[str] = ()) -> list[str]:
    """The sentences, and each label word once at the start of a text and once behind a blank; `words` are more."""
    known = (*LABEL_WORDS, *words)
    return [*SENTENCES, *known, *(f"a {word}" for word in known)]


def roberta_like(words: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """Byte-level BPE with ``<s> … </s>``; the mask token swallows the blank before it."""
    vocab, merges = _train_byte_level(["<s>", "<pad>", "</s>", "<unk>", "<mask>"], words)
    mask = AddedToken("<mask>", lstrip=True, special=True)
    return RobertaTokenizerFast(vocab=vocab, merges=merges, mask_token=mask, model_max_length=512)


def bert_like(words: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """Lower-casing WordPiece with ``[CLS] … [SEP]``; words that it does not know become letters.

    It is not trained: the pieces that `WordPieceTrainer` finds, and their ids, differ from process to process.
    """
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    known = {word for text in training_texts(words) for word, _ in split(text.lower())}
    letters = {letter for word in known for letter in word}
    pieces = [*sorted(known | letters), *sorted(f"##{letter}" for letter in letters)]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return BertTokenizerFast(vocab={piece: i for i, piece in enumerate([*special, *pieces])}, model_max_length=512)


def xlm_roberta_like(words: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """Sentencepiece unigrams with ``<s> … </s>`` and a blank put before every text; the mask swallows blanks before it.

    The blank is a token of its own before words that no blank stood before in the texts it was trained on.
    """
    texts = "\n".join(training_texts())
    pieces = {"\u2581", *texts, *(f"\u2581{word}" for word in texts.split())} - {" ", "\n"}
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    vocab = [
        *((token, 0.0) for token in special),
        *((piece, -10.0) for piece in sorted(pieces)),
        *((w, -5.0) for w in words),
    ]
    mask = AddedToken("<mask>", lstrip=True, special=True)
    return XLMRobertaTokenizerFast(vocab=[*vocab, ("<mask>", 0.0)], mask_token=mask, model_max_length=512)


def llama_like(words: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """Sentencepiece-like BPE with ``<s>`` in front, a blank put before the first word, and byte fallback."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocab, merges = _train_bpe(tokenizer, special, [], words)
    return LlamaTokenizerFast(vocab=vocab, merges=merges, pad_token="</s>", add_bos_token=True, model_max_length=512)


def gpt2_like(words: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """Byte-level BPE that puts no start token; its one special token ends texts and pads."""
    vocab, merges = _train_byte_level(["<|endoftext|>"], words)
    return GPT2TokenizerFast(vocab=vocab, merges=merges, pad_token="<|endoftext|>", model_max_length=512)


def _train_byte_level(special: list[str], words: Sequence[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return _train_bpe(tokenizer, special, sorted(pre_tokenizers.ByteLevel.alphabet()), words)


def _train_bpe(
    tokenizer: Tokenizer, special: list[str], alphabet: list[str], words: Sequence[str]
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        min_frequency=1,
        special_tokens=special,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(training_texts(words), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]
