"""Pretrained language models as black boxes: texts in, label word logits out."""
