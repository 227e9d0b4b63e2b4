"""A client's model, texts and Trainer as transformers and PEFT have them, and a record of when it began each round.

Nothing of flaretune: both federations beside it use this, each in an environment of its own.
"""

from __future__ import annotations

import csv
import json
import os
import resource
import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.utils.data import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments

WORK = "BESIDE_WORK"  # environment variable: the JSON of what is to be done, see `beside_others.Work`
LOG = "times.jsonl"


def work() -> dict[str, Any]:
    return json.loads(os.environ[WORK])


def adapted(asked: dict[str, Any]) -> PeftModel:
    """The pretrained model with new adapters."""
    dtype = getattr(torch, asked["dtype"])
    model = AutoModelForCausalLM.from_pretrained(asked["model"], dtype=dtype, use_safetensors=True)
    modules = asked["target_modules"].split(",")
    config = LoraConfig(
        r=asked["rank"], lora_alpha=asked["alpha"], target_modules=modules, task_type="CAUSAL_LM", lora_dropout=0
    )
    torch.manual_seed(1)
    return get_peft_model(model, config)


class Texts(Dataset):
    """Texts in the task's template, the label word behind them; the loss is that of the label word alone."""

    def __init__(self, rows: list[tuple[str, str]], tokenizer: Any, template: str):
        self._rows = []
        for text, word in rows:
            ids = tokenizer(template.replace("{text}", text)).input_ids
            answer = tokenizer(word, add_special_tokens=False).input_ids
            self._rows.append({"input_ids": ids + answer, "labels": [-100] * len(ids) + answer})

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> dict[str, list[int]]:
        return dict(self._rows[i])


def make_trainer(asked: dict[str, Any], client: int, folder: Path, **arguments: Any) -> Trainer:
    """The Trainer of a client: half of its file is trained on, the other half evaluated."""
    tokenizer = AutoTokenizer.from_pretrained(asked["model"])
    with Path(asked["files"][client]).open(newline="", encoding="utf-8") as file:
        rows = [(row["sentence"], asked["words"][int(row["label"])]) for row in csv.DictReader(file)]
    half = len(rows) // 2
    train, validation = (Texts(some, tokenizer, asked["template"]) for some in (rows[:half], rows[half:]))
    settings = TrainingArguments(
        output_dir=str(folder / f"client{client}"),
        per_device_train_batch_size=asked["batch"],
        per_device_eval_batch_size=asked["batch"],
        learning_rate=asked["learning_rate"],
        lr_scheduler_type="constant",
        max_steps=asked["steps"],
        prediction_loss_only=True,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        use_cpu=True,
        seed=1,
        disable_tqdm=True,
        **arguments,
    )
    return Trainer(
        adapted(asked),
        settings,
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        train_dataset=train,
        eval_dataset=validation,
    )


def record(asked: dict[str, Any], client: int) -> None:
    """Note that this client begins a round, and the most memory that its process has held."""
    line = {
        "client": client,
        "time": time.time(),
        "memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10, 1),
    }
    with (Path(asked["folder"]) / LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
