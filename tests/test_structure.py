"""The design's one-way flow, read from the imports of every module."""

import ast
import subprocess
import sys
from pathlib import Path

import flaretune

PACKAGE = Path(flaretune.__file__).parent
# What a part may import from, besides itself. Parts further right never appear on the left.
BASE = {"errors", "cache", "seeding", "config", "retired_options", "toml_file"}
MAY_IMPORT = {
    "errors": set(),
    "cache": {"errors"},
    "seeding": set(),
    "retired_options": {"errors"},
    "config": {"errors", "retired_options"},
    "toml_file": {"errors"},
    "tasks": BASE,
    "demo_assets": BASE,
    "data": BASE | {"tasks"},
    "models": BASE | {"tasks", "data"},
    "fedbpt": BASE | {"tasks", "data", "models"},
    "predict": BASE | {"tasks", "data", "models", "fedbpt"},
    "report": BASE | {"tasks", "fedbpt"},
    "flare": BASE | {"tasks", "data", "models", "fedbpt", "report"},
    "__main__": BASE | {"tasks", "data", "models", "fedbpt", "report", "predict", "demo_assets"},
}


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


def test_every_part_has_its_place_in_the_flow():
    parts = {part_of(file) for file in PACKAGE.rglob("*.py")} - {"__init__"}
    assert parts == set(MAY_IMPORT)


def test_only_flare_imports_nvflare():
    assert {part_of(file) for file, module in imports() if module.split(".")[0] == "nvflare"} == {"flare"}


def test_search_and_tasks_need_no_torch():
    users = {part_of(file) for file, module in imports() if module.split(".")[0] in ("torch", "transformers")}
    assert not users & {"fedbpt", "tasks", "report", "config", "errors"}


def test_server_side_code_does_not_load_torch_or_transformers():
    code = (
        "import sys, nvflare.client, nvflare.app_common.workflows.model_controller\n"
        "before = set(sys.modules)\n"
        "import flaretune.flare.fedbpt_controller\n"
        "print([m for m in set(sys.modules) - before if m.split('.')[0] in ('torch', 'transformers')])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, timeout=120, check=True
    )
    assert run.stdout.strip() == "[]"


def test_top_level_modules_take_no_library_s_name():
    names = {path.stem for path in PACKAGE.parent.iterdir() if path.suffix in (".py", "") and path.name[0] != "_"}
    assert not names & {"datasets", "models", "utils", "evaluate", "cma", "torch", "tokenizers"}
