"""The design's one-way flow, read from the imports of every module."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import flaretune

PACKAGE = Path(flaretune.__file__).parent
# What a part may import from, besides itself. Parts further right never appear on the left.
BASE = {"errors", "robust", "cache", "seeding", "config", "retired_options", "toml_file", "free_port"}
METHODS = {"fedbpt", "lpfl"}  # neither knows the other
MAY_IMPORT = {
    "errors": set(),
    "robust": set(),
    "cache": {"errors"},
    "seeding": set(),
    "free_port": set(),
    "command_line": {"errors"},
    "retired_options": {"errors"},
    "config": {"errors", "cache", "retired_options", "toml_file"},
    "toml_file": {"errors"},
    "tasks": BASE,
    "privacy": BASE | {"tasks"},
    "demo_assets": BASE,
    "data": BASE | {"tasks"},
    "models": BASE | {"tasks", "data"},
    "fedbpt": BASE | {"tasks", "privacy", "data", "models"},
    "lpfl": BASE | {"tasks", "privacy", "data", "models"},
    "service": BASE | {"tasks", "data", "models"},
    "predict": BASE | {"tasks", "data", "models"} | METHODS,
    "own_task": BASE | {"command_line", "tasks", "data", "models", "predict"},
    "report": BASE | {"tasks", "privacy", "fedbpt"},
    "flare": BASE | {"command_line", "tasks", "privacy", "data", "models", "service", "report"} | METHODS,
    "bench": BASE | {"command_line", "tasks", "data", "models", "service", "report", "flare"} | METHODS,
    "__main__": BASE
    | {"command_line", "tasks", "data", "models", "service", "report", "predict", "own_task", "demo_assets", "bench"}
    | {"flare"}
    | METHODS,
}
TRAINING_LIBRARIES = ("torch", "transformers", "peft")
# Of lpfl/, what the server and `predict --help` load; the rest trains.
LPFL_WITHOUT_TORCH = {"soft_labels.py", "artifact.py", "answers.py", "bounded.py"}


def imports() -> list[tuple[Path, str]]:
    """(file, imported module) for every import statement, inside functions too."""
    found = []
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found += [(file, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file}: relative import"
                found += [(file, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def part_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_imports_point_one_way():
    wrong = []
    for file, module in imports():
        part = part_of(file)
        if not module.startswith("flaretune.") or part == "__init__":
            continue
        target = module.split(".")[1]
        if target != part and target not in MAY_IMPORT[part]:
            wrong.append(f"{file.relative_to(PACKAGE)} imports {module}")
    assert not wrong


def test_no_two_files_need_each_other():
    module_of = {
        file: ".".join(("flaretune", *file.relative_to(PACKAGE).with_suffix("").parts))
        for file in PACKAGE.rglob("*.py")
    }
    known = set(module_of.values())
    needs: dict[str, set[str]] = {module: set() for module in known}
    for file, imported in imports():
        for module in (imported, imported.rpartition(".")[0]):  # a module, or a name in one
            needs[module_of[file]] |= {module} & known
    assert sum(map(len, needs.values())) > len(known)  # which are found at all
    assert len([*TopologicalSorter(needs).static_order()]) == len(known)  # raises CycleError


def test_every_part_has_its_place_in_the_flow():
    parts = {part_of(file) for file in PACKAGE.rglob("*.py")} - {"__init__"}
    assert parts == set(MAY_IMPORT)


def test_only_flare_imports_nvflare():
    assert {part_of(file) for file, module in imports() if module.split(".")[0] == "nvflare"} == {"flare"}


# Of models/ and service/, what a client of the service loads.
CLIENT_WITHOUT_TORCH = {"models/prompt_settings.py", "service/client.py", "service/protocol.py", "service/launch.py"}


def test_a_client_of_the_service_needs_no_torch():
    users = {str(file.relative_to(PACKAGE)) for file, module in imports() if module.split(".")[0] in TRAINING_LIBRARIES}
    assert all((PACKAGE / name).is_file() for name in CLIENT_WITHOUT_TORCH)
    assert not users & CLIENT_WITHOUT_TORCH


def test_search_and_tasks_need_no_torch():
    users = {part_of(file) for file, module in imports() if module.split(".")[0] in TRAINING_LIBRARIES}
    assert not users & {"fedbpt", "tasks", "report", "flare", "config", "errors"}


def test_what_the_server_needs_of_lp_fl_needs_no_torch():
    users = {
        file.name
        for file, module in imports()
        if part_of(file) == "lpfl" and module.split(".")[0] in TRAINING_LIBRARIES
    }
    assert {file.name for file in (PACKAGE / "lpfl").iterdir()} >= LPFL_WITHOUT_TORCH
    assert "local_train.py" in users  # which is looked for in the right place
    assert not users & LPFL_WITHOUT_TORCH


@pytest.mark.parametrize("module", ["flare.fedbpt_controller", "flare.lpfl_controller", "flare.lpfl_client"])
def test_server_side_code_and_a_script_s_start_load_no_torch_transformers_or_peft(module):
    code = (
        "import sys, nvflare.client, nvflare.app_common.workflows.model_controller\n"
        "before = set(sys.modules)\n"
        f"import flaretune.{module}\n"
        f"print([m for m in set(sys.modules) - before if m.split('.')[0] in {TRAINING_LIBRARIES}])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, timeout=120, check=True
    )
    assert run.stdout.strip() == "[]"


def test_top_level_modules_take_no_library_s_name():
    names = {path.stem for path in PACKAGE.parent.iterdir() if path.suffix in (".py", "") and path.name[0] != "_"}
    assert not names & {"datasets", "models", "utils", "evaluate", "cma", "torch", "tokenizers"}
