#!/usr/bin/env bash
# NVFlare 2.9.0: `nvflare job create -f FILE key=value` reads the value as HOCON, whose comments begin with #.
# Seen: with app_config="--data a#b.csv --rounds 3" the job folder is made, exit status 0, and its configuration holds
# app_config = "--data a": everything from # on is gone without a word. Inside double quotes of its own the value
# survives: app_config='"--data a#b.csv --rounds 3"'.
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
export HOME="$folder"
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check nvflare==2.9.0 pyhocon==0.3.63
PATH="$folder/venv/bin:$PATH"
mkdir -p "$folder/templates/one" "$folder/code"
cat >"$folder/templates/one/config_fed_client.conf" <<'CONF'
{
  format_version = 2
  app_script = "train.py"
  app_config = ""
  executors = [
    {
      tasks = ["train"]
      executor {
        path = "nvflare.app_common.executors.client_api_executor.ClientAPIExecutor"
        args { execution_mode = "external_process", command = "python3 custom/{app_script} {app_config}" }
      }
    }
  ]
  task_data_filters = []
  task_result_filters = []
  components = []
}
CONF
cat >"$folder/templates/one/config_fed_server.conf" <<'CONF'
{
  format_version = 2
  workflows = [
    { id = "fedavg", path = "nvflare.app_common.workflows.fedavg.FedAvg", args { num_clients = 1, num_rounds = 1 } }
  ]
  components = []
  task_data_filters = []
  task_result_filters = []
}
CONF
printf 'name = one\ndeploy_map { app = ["@ALL"] }\nmin_clients = 1\n' >"$folder/templates/one/meta.conf"
printf 'description = "one"\n' >"$folder/templates/one/info.conf"
echo '# one' >"$folder/templates/one/info.md"
echo 'pass' >"$folder/code/train.py"
cd "$folder"
nvflare config -jt "$folder/templates" >/dev/null 2>&1
create() {
  nvflare job create -force -j "$folder/job" -w one -sd "$folder/code" \
    -f app/config/config_fed_client.conf app_script=train.py app_config="$1" >"$folder/said" 2>&1 || { cat "$folder/said"; exit 1; }
  grep 'app_config *[=:]' "$folder/job/app/config/config_fed_client.conf" | head -n 1
}
echo "plain:  $(create '--data a#b.csv --rounds 3')"
echo "quoted: $(create '"--data a#b.csv --rounds 3"')"
create '--data a#b.csv --rounds 3' | grep -q 'rounds' && { echo 'the value was kept: NVFlare has changed'; exit 1; }
create '"--data a#b.csv --rounds 3"' | grep -q 'b.csv --rounds 3' || { echo 'quotes do not help: NVFlare has changed'; exit 1; }
