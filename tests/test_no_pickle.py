"""Nothing is unpickled, and no text becomes code: read from every call and import."""

import ast
from pathlib import Path

import pytest

import flaretune

SOURCE = Path(flaretune.__file__).parents[1]
REPOSITORY = Path(__file__).parents[1]
FILES = [file for folder in (SOURCE, REPOSITORY / "jobs", REPOSITORY / "benchmarks") for file in folder.rglob("*.py")]
UNPICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
CALLS = {"torch.load", "pandas.read_pickle", "pd.read_pickle", "eval", "exec", "yaml.load", "yaml.unsafe_load"}
WEIGHTS = ("AutoModelForMaskedLM", "AutoModelForCausalLM", "auto_class", "AutoModel", "PeftModel")


def wrong_in(source: str) -> list[str]:
    """What a module imports or calls that may run what is in a file."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in UNPICKLERS]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNPICKLERS:
            found.append(node.module)
        elif isinstance(node, ast.Call):
            name, given = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
            if name in CALLS or given.get("trust_remote_code") == "True" or given.get("allow_pickle") == "True":
                found.append(name)
            if name in ("np.load", "numpy.load", "np.lib.npyio.NpzFile") and given.get("allow_pickle") != "False":
                found.append(f"{name} without allow_pickle=False")
            owner, _, method = name.rpartition(".")
            if method == "from_pretrained" and owner in WEIGHTS and not {"use_safetensors", "gguf_file"} & set(given):
                found.append(f"{name} without use_safetensors=True")
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(file.parents[2])))
def test_nothing_is_unpickled(file):
    assert wrong_in(file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from dill import load", "torch.load(f)", "np.load(f)", "np.load(f, allow_pickle=True)",
        "eval(text)", "AutoModelForCausalLM.from_pretrained(x)", 
        "AutoConfig.from_pretrained(x, trust_remote_code=True)",
    ],
)  # fmt: skip
def test_it_would_be_found(source):
    assert wrong_in(source)
