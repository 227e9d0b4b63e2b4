"""MkDocs hook: links out of docs/ to other files of the repository also work in the built pages, as on GitHub.

The files that pages link to (figures, results, task files, the notebook) are copied into the site as they are.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).parents[2]
FOLDER = "repository"  # of the copies, in the site
LINK = re.compile(r"(?<=\]\()((?:\.\./)+[^)#\s]+)")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point a page's links out of docs/ to copies, and copy the files."""

    def copied(match: re.Match[str]) -> str:
        folder = posixpath.dirname(page.file.src_uri)
        target = posixpath.normpath(posixpath.join("docs", folder, match[1]))  # from the repository's root
        if target.startswith("docs/") or not (REPOSITORY / target).is_file():
            return match[1]  # MkDocs says what is wrong with it
        copy = f"{FOLDER}/{target}"
        if files.get_file_from_path(copy) is None:
            files.append(File.generated(config, copy, abs_src_path=str(REPOSITORY / target)))
        return posixpath.relpath(copy, folder or ".")

    return LINK.sub(copied, markdown)
