"""Pretrained language models as black boxes that answer with the logits of the label words."""
