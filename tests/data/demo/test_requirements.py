"""What the conversion of the demo's model needs besides transformers; with the model cached nothing else would tell."""

from transformers.utils import is_accelerate_available, is_gguf_available


def test_transformers_can_read_a_gguf_file():
    assert is_gguf_available()
    assert is_accelerate_available()
