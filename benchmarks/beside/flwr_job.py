"""flwr's simulation: `python -m beside.flwr_job`, told by the environment.

A client is called anew for every task; its model and Trainer are kept in the process that calls it, which flwr's own
examples do not do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from peft import get_peft_model_state_dict, set_peft_model_state_dict

from beside.plain import adapted, make_trainer, record, work

client_app, server_app = ClientApp(), ServerApp()
trainers: dict[int, Any] = {}


def trainer_with(message: Message, context: Context) -> tuple[Any, int]:
    """This client's Trainer, with the server's adapters in its model; and the client's number."""
    asked, client = work(), int(context.node_config["partition-id"])
    if client not in trainers:
        trainers[client] = make_trainer(asked, client, Path(asked["folder"]))
    trainer = trainers[client]
    set_peft_model_state_dict(trainer.model, message.content["arrays"].to_torch_state_dict())
    return trainer, client


@client_app.train()
def train(message: Message, context: Context) -> Message:
    trainer, client = trainer_with(message, context)
    record(work(), client)
    trainer.optimizer = trainer.lr_scheduler = None  # as in every round of FedAvg
    trainer.train()
    arrays = ArrayRecord(dict(get_peft_model_state_dict(trainer.model)))
    metrics = MetricRecord({"num-examples": len(trainer.train_dataset)})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@client_app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    trainer, _ = trainer_with(message, context)
    metrics = MetricRecord({**trainer.evaluate(), "num-examples": len(trainer.eval_dataset)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    asked = work()
    n_clients = len(asked["files"])
    strategy = FedAvg(min_train_nodes=n_clients, min_evaluate_nodes=n_clients, min_available_nodes=n_clients)
    arrays = ArrayRecord(dict(get_peft_model_state_dict(adapted(asked))))
    strategy.start(grid, arrays, num_rounds=asked["rounds"])


if __name__ == "__main__":
    backend = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    run_simulation(server_app, client_app, num_supernodes=len(work()["files"]), backend_config=backend)
