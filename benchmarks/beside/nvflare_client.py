"""A client of NVFlare's FedAvg recipe: its Hugging Face client API around a Trainer."""

from pathlib import Path

import nvflare.client.hf as flare

from beside.plain import make_trainer, record, work

asked = work()
flare.init()
client = int(flare.get_site_name().rsplit("-", 1)[1]) - 1
trainer = make_trainer(asked, client, Path(asked["folder"]))
flare.patch(trainer, restore_state=False, local_steps=asked["steps"])
while flare.is_running():
    record(asked, client)
    trainer.evaluate()
    trainer.train()
