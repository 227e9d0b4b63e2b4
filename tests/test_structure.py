"""The design's one-way flow, read from the imports of every module."""

import ast
import functools
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import flaretune
from tests.commands_for_tests import python

PACKAGE = Path(flaretune.__file__).parent
# What a part may import from, besides itself, in the order of the flow: each from those before it.
BASE = {"errors", "cache", "seeding", "files", "host", "softmax", "versions"}
FLOW = [
    "aggregation",
    "config",
    "tasks",
    "data",
    "privacy",
    "models",
    "model_server",
    "methods",
    "engine",
    "authoring",
    "flare",
    "cli",
    "__main__",
]
MAY_IMPORT = {part: {*BASE, *FLOW[:place]} for place, part in enumerate(FLOW)} | {
    "errors": set(),
    "cache": {"errors"},
    "seeding": set(),
    "files": {"errors"},
    "host": set(),
    "softmax": set(),
    "versions": set(),
}
TRAINING_LIBRARIES = ("torch", "transformers", "peft")
# Of methods/, what the server and a command line load; the rest works with a model.
WITHOUT_TORCH = {
    "__init__.py",
    "base.py",
    "exchanged.py",
    "message.py",
    "registry.py",
    "config.py",
    "strategy.py",
    "artifact.py",
}


@functools.cache
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
    users = {str(file.relative_to(PACKAGE)) for file, module in imports() if module.split(".")[0] == "nvflare"}
    # a secret reference is NVFlare's, and resolved where the token is needed
    assert {name.split("/")[0] for name in users - {"methods/served_model.py"}} == {"flare"}


# Of models/ and model_server/, what a client of the model server loads.
CLIENT_WITHOUT_TORCH = {
    "models/prompt_settings.py",
    "model_server/client.py",
    "model_server/connection.py",
    "model_server/vllm.py",
    "methods/served_model.py",
    "model_server/protocol.py",
    "model_server/launch.py",
    "methods/fedbpt/client.py",
    "methods/fedbpt/learned_client.py",
    "methods/fedbpt/open.py",
}


def users_of_training_libraries() -> set[str]:
    return {str(file.relative_to(PACKAGE)) for file, module in imports() if module.split(".")[0] in TRAINING_LIBRARIES}


def test_a_client_of_the_model_server_needs_no_torch():
    assert all((PACKAGE / name).is_file() for name in CLIENT_WITHOUT_TORCH)
    assert not users_of_training_libraries() & CLIENT_WITHOUT_TORCH


def test_what_the_server_needs_uses_no_torch():
    users = users_of_training_libraries()
    assert "methods/lpfl/local_train.py" in users  # which is looked for in the right place
    assert not {name for name in users if name.split("/")[0] in {"aggregation", "config", "tasks", "engine", "flare"}}
    assert not {name for name in users if name.startswith("methods/") and Path(name).name in WITHOUT_TORCH}


@pytest.mark.slow
@pytest.mark.parametrize("module", ["flare.controller", "flare.client_script", "engine.rounds"])
def test_server_side_code_and_a_script_s_start_load_no_torch_transformers_or_peft(module):
    code = (
        "import sys, nvflare.client, nvflare.app_common.workflows.model_controller\n"
        "before = set(sys.modules)\n"
        f"import flaretune.{module}\n"
        "from flaretune.methods.registry import METHODS\n"
        "[method.strategy(method.server_config()) for method in METHODS.values()]\n"
        f"print([m for m in set(sys.modules) - before if m.split('.')[0] in {TRAINING_LIBRARIES}])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, timeout=120, check=True
    )
    assert run.stdout.strip() == "[]"


def test_engine_and_methods_need_no_nvflare(without_nvflare):
    modules = ("engine.rounds", "engine.worker", "methods.registry", "methods.fedbpt.strategy")
    done = python("-c", "".join(f"import flaretune.{module}\n" for module in modules), path=without_nvflare)
    assert done.returncode == 0, done.stderr


def test_top_level_modules_take_no_library_s_name():
    names = {path.stem for path in PACKAGE.parent.iterdir() if path.suffix in (".py", "") and path.name[0] != "_"}
    assert not names & {"datasets", "models", "utils", "evaluate", "cma", "torch", "tokenizers"}
