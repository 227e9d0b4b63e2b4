"""The documentation: every relative link leads to a file and an anchor, as GitHub shows them."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

REPOSITORY = Path(__file__).parents[1]
FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1`*$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
SOURCE = re.compile(r"\b(?:src|href)=\"([^\"]+)\"")
HEADING = re.compile(r"^#{1,6} +(.*?)#*$", re.MULTILINE)
# README of the published example, section 2.
PUBLISHED = (
    "--task_name sst2 --n_prompt_tokens 50 --intrinsic_dim 500 --k_shot 200 --device cuda:0 --seed 1234 "
    "--loss_type ce --cat_or_add add --local_iter 8 --num_users 10 --iid 1 --local_popsize 5 --perturb 1 "
    "--model_name roberta-large --eval_clients site-1 --llama_causal 1"
)
ANCHOR = re.compile(r"<a +(?:id|name)=\"([^\"]+)\"")


def pages() -> list[Path]:
    """Markdown files of the repository: those that git tracks, and new ones."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"]
    found = subprocess.run(listed, cwd=REPOSITORY, capture_output=True, text=True)
    if found.returncode:  # an archive without git
        skipped = {".venv", "runs", "build", "node_modules"}
        return sorted(p for p in REPOSITORY.rglob("*.md") if not skipped & set(p.relative_to(REPOSITORY).parts))
    return sorted({REPOSITORY / name for name in found.stdout.split("\0") if name and (REPOSITORY / name).is_file()})


def links(text: str) -> Iterator[str]:
    """Targets of a page's links and images, but for those in code; those in comments too, which may be switched on."""
    prose = CODE.sub("", FENCE.sub("", text))
    yield from (match[1] for pattern in (LINK, SOURCE) for match in pattern.finditer(prose))


def anchors(text: str) -> set[str]:
    """What may follow # in a link to a page: its headings as GitHub writes them, and anchors of its own."""
    prose = COMMENT.sub("", FENCE.sub("", text))
    found, seen = set(ANCHOR.findall(prose)), Counter()
    for heading in HEADING.findall(prose):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def problem(page: Path, link: str) -> str:
    """What is wrong with a link; "" if nothing is, or if it leads to another host."""
    if re.match(r"[a-z][a-z0-9+.-]*:", link):
        return "" if link.startswith(("https://", "http://", "mailto:")) else "unknown kind of address"
    target, _, anchor = unquote(link).partition("#")
    if target.startswith("/"):
        return "give a path relative to the page"
    file = (page.parent / target).resolve() if target else page
    if not file.is_relative_to(REPOSITORY.resolve()) or not file.exists():
        return "there is no such file"
    if anchor and (file.suffix != ".md" or anchor not in anchors(file.read_text(encoding="utf-8"))):
        return "there is no such heading"
    return ""


TEST_FILE = re.compile(r"`((?:tests/)?(?:\w+/)*test_\w+\.py)`")


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_tests_that_are_named_are_there(page):
    """By their path in the repository, or by their name alone."""
    named = set(TEST_FILE.findall(page.read_text(encoding="utf-8")))
    tests = [str(file.relative_to(REPOSITORY)) for file in (REPOSITORY / "tests").rglob("test_*.py")]
    assert [name for name in sorted(named) if not any(f"/{test}".endswith(f"/{name}") for test in tests)] == []


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_relative_link_leads_somewhere(page):
    found = list(links(page.read_text(encoding="utf-8")))
    wrong = {link: why for link in found if (why := problem(page, link))}
    assert wrong == {}


def test_pages_and_their_links_are_found():
    names = {str(page.relative_to(REPOSITORY)) for page in pages()}
    assert {"README.md", "docs/index.md", "docs/how-to/own-task.md", "job_templates/fedbpt/info.md"} <= names
    assert len(list(links((REPOSITORY / "README.md").read_text(encoding="utf-8")))) > 20


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a](b.md) ![c](d.png) [`e`](f.md#g)", ["b.md", "d.png", "f.md#g"]),
        ("`[a](b.md)` and ``[`a`](b.md)``", []),
        ("```sh\n[a](b.md)\n```\n[c](d.md)", ["d.md"]),
        ("<!-- [a](b.md) -->", ["b.md"]),
        ('[![a](b.svg)](c.md "title") <img src="d.png">', ["c.md", "d.png"]),
    ],
)
def test_links_are_read_as_they_are_shown(text, expected):
    assert list(links(text)) == expected


def test_anchors_are_those_of_github():
    text = "# A `b`: c/d.e\n## FedBPT's search\n### Same\n### Same\n```sh\n# no heading\n```\n## [x](y.md) – z_1 ##\n"
    assert anchors(text) == {"a-b-cde", "fedbpts-search", "same", "same-1", "x--z_1"}


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("docs/index.md", ""),
        ("docs", ""),
        ("docs/nope.md", "there is no such file"),
        ("docs/contributing.md#add-a-metric", ""),
        ("docs/contributing.md#add-a-pony", "there is no such heading"),
        ("#results", ""),
        ("#no-results", "there is no such heading"),
        ("../elsewhere.md", "there is no such file"),
        ("/docs/index.md", "give a path relative to the page"),
        ("https://example.org/#x", ""),
        ("file:///etc/passwd", "unknown kind of address"),
    ],
)
def test_a_link_that_leads_nowhere_is_found(link, expected):
    assert problem(REPOSITORY / "README.md", link) == expected


def test_the_readme_is_short():
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_the_published_command_stands_where_users_look_for_it():
    """The same block, word by word, in the README and on the page about it, with the options as they were published."""
    blocks = []
    for name in ("README.md", "docs/how-to/gpu-box.md"):
        found = re.findall(r"```sh\n(.*?)```", (REPOSITORY / name).read_text(encoding="utf-8"), re.DOTALL)
        blocks.append(next(block for block in found if "--num_users" in block))
    assert blocks[0] == blocks[1]
    assert re.search(r'app_config="(.*?)"', blocks[0], re.DOTALL)[1].replace("\\\n", "") == PUBLISHED
