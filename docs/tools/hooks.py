"""What mkdocs does besides: pages and files of the repository outside `docs/` become part of the site.

On the pages a link such as `../benchmarks/results/kills.json` leads to the file in the repository; in the
site it leads to a copy of it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
COPIES = "repository/"
LINK = re.compile(r"(?<=\]\()\.\./([^)#]+)")  # a target that leaves docs/


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the root, and every file that a page links to."""
    for name, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / name)))
    linked = {
        name for path in Path(config.docs_dir).glob("*.md") for name in LINK.findall(path.read_text("utf-8"))
    }
    for name in sorted(linked - set(PAGES)):
        if (ROOT / name).is_file():  # what is missing stays a broken link, which ends a strict build
            files.append(File.generated(config, COPIES + name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links that leave `docs/` lead to the copies."""
    return LINK.sub(lambda found: PAGES.get(found[1], COPIES + found[1]), markdown)
