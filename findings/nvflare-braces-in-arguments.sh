#!/usr/bin/env bash
# NVFlare 2.9.0: JSON as an argument of a client's script ends the client before it starts.
# Seen: a recipe's or job's command-line argument such as {"epochs": 2} is written into config_fed_client.json as it is.
# When a client reads that file, NVFlare takes what stands between braces for an expression over the file's variables
# ("bad parameterized expression …: "epochs" is not defined"), and the client never runs; `job.export_job` says nothing.
# The job's server sees no result. Doubling the braces does not escape them. What helps: put the JSON into a file of the
# job (FedJob.add_file_to) and give the script its path, as flaretune does (flare/executor.py).
# Fails if NVFlare's behaviour has changed.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check nvflare==2.9.0 numpy==2.2.6
cat >"$folder/train.py" <<'PY'
import nvflare.client as flare

flare.init()
while flare.is_running():
    model = flare.receive()
    flare.send(model)
PY
cat >"$folder/job.py" <<'PY'
import sys

from nvflare.app_common.executors.client_api_executor import ClientAPIExecutor
from nvflare.app_common.workflows.fedavg import FedAvg
from nvflare.job_config.api import FedJob

job = FedJob(name="braces", min_clients=1)
job.to_server(FedAvg(num_clients=1, num_rounds=1))
command = [sys.executable, "custom/train.py", "--options", sys.argv[1]]
job.to_clients(ClientAPIExecutor(execution_mode="external_process", command=command))
job.export_job(sys.argv[2])
PY
cd "$folder"
python="$folder/venv/bin/python"
for options in '{"epochs": 2}' '{{"epochs": 2}}'; do
  "$python" job.py "$options" "$folder/exported"
  "$python" -m nvflare.cli simulator "$folder/exported/braces" -n 1 -t 1 -w "$folder/workspace" >"$folder/said" 2>&1 || true
  echo "$options: $(grep -o "ConfigError: bad parameterized expression.*" "$folder/said" | head -n 1 | cut -c1-100)"
  grep -q 'ConfigError: bad parameterized expression' "$folder/said" || { echo 'the client read it: NVFlare has changed'; exit 1; }
done
