import argparse

import pytest

from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.config.client_flags import parse_site_flags
from flaretune.errors import UserError
from flaretune.config.retired_options import RETIRED, add_retired_flags, answer_retired

# (what is given, what the sentence must say besides the option's name); the job goes on
HARMLESS = [
    (["--parallel"], "all candidates of a generation are always evaluated together"),
    (["--parallel", "1"], "all candidates of a generation are always evaluated together"),
    (["--alg", "CMA"], "CMA-ES is the only search algorithm"),
    (["--random_proj", "normal"], "--alpha"),
    (["--note", "second try"], "name the job folder or the output folder"),
    (["--save_prompt", "1"], "best_prompt.safetensors"),
    (["--save_prompt", "0"], "best_prompt.safetensors"),
    (["--print_every", "50"], "one line is printed a round"),
    (["--eval_every", "100"], "evaluated after every round"),
    (["--inference_framework", "pt"], "--dtype"),
]
# The job ends with the sentence.
REFUSED = [
    (["--alg", "DE"], "--alg DE: CMA-ES is the only search algorithm"),
    (["--random_proj", "he"], "--random_proj he: the projection is always normal"),
    (["--init_score_path", "scores.npy"], "--init_score_path scores.npy: scores from other runs are not read"),
    (["--inference_framework", "ort"], "--inference_framework ort: ONNX runtime is not supported"),
    (["--onnx_model_path", "model.onnx"], "--onnx_model_path model.onnx: ONNX models are not supported"),
    (["--onnx_model_path"], "--onnx_model_path: ONNX models are not supported"),
]


@pytest.mark.parametrize(("argv", "says"), HARMLESS)
def test_a_harmless_value_is_answered_with_one_sentence(argv, says):
    config, sentences = parse_site_flags(FedBPTConfig, argv)
    assert config == FedBPTConfig()
    [sentence] = sentences
    assert sentence.startswith(f"{argv[0]} has no effect: ")
    assert says in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(("argv", "message"), REFUSED)
def test_what_is_not_there_any_more_is_refused(argv, message):
    with pytest.raises(UserError) as refused:
        parse_site_flags(FedBPTConfig, argv)
    assert str(refused.value).startswith(message)
    assert any(way in str(refused.value) for way in ("use --", "give ", "start from", "leave it out"))


def test_every_retired_option_is_tried_above_and_none_is_an_option_as_well():
    assert {argv[0].removeprefix("--") for argv, _ in HARMLESS + REFUSED} == set(RETIRED)
    assert not set(RETIRED) & set(FedBPTConfig.__dataclass_fields__)


def test_sentences_come_in_a_fixed_order_and_only_for_what_was_given():
    parser = argparse.ArgumentParser()
    add_retired_flags(parser)
    assert answer_retired(vars(parser.parse_args([]))) == []
    sentences = answer_retired(vars(parser.parse_args(["--save_prompt", "1", "--parallel"])))
    assert [sentence.split()[0] for sentence in sentences] == ["--parallel", "--save_prompt"]
