"""NVFlare's FedAvg recipe in its simulator: `python -m beside.nvflare_job`, told by the environment."""

from pathlib import Path

from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe
from nvflare.recipe import SimEnv

from beside.nvflare_model import Adapters
from beside.plain import work

if __name__ == "__main__":
    asked = work()
    recipe = FedAvgRecipe(
        name="beside",
        model=Adapters(),
        min_clients=len(asked["files"]),
        num_rounds=asked["rounds"],
        train_script=str(Path(__file__).with_name("nvflare_client.py")),
        key_metric="eval_loss",
        key_metric_mode="min",
    )
    n_clients = len(asked["files"])
    run = recipe.execute(SimEnv(num_clients=n_clients, num_threads=n_clients, workspace_root=asked["folder"]))
    print("status", run.get_status())
