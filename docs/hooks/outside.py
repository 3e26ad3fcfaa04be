"""Brings the files outside docs/ that pages link to into the site.

A page writes such a link relative to its own place in the repository, so that it works where the
repository is read, too.  Markdown becomes a page, everything else is copied below ``source/``.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)#\s:]+)((?:#[^)]*)?\))")
#: path in the repository -> page of the site
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages above, and every file outside docs/ that a page links to."""
    for path, uri in PAGES.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
    for page in list(files.documentation_pages()):
        for _, target, _ in LINK.findall(page.content_string):
            path = _in_repository(page.src_uri, target)
            uri = _in_site(path)
            if uri.startswith("source/") and (ROOT / path).is_file() and uri not in files.src_uris:
                files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point the links of ``page`` to where their files are in the site."""
    here = posixpath.dirname(page.file.src_uri)

    def rewrite(match: re.Match[str]) -> str:
        before, target, after = match.groups()
        uri = _in_site(_in_repository(page.file.src_uri, target))
        if uri not in files.src_uris:
            return match.group()  # not ours to mend: the strict build names it
        return f"{before}{posixpath.relpath(uri, here or '.')}{after}"

    return LINK.sub(rewrite, markdown)


def _in_repository(page: str, target: str) -> str:
    """The path in the repository of what ``page`` of the site links to as ``target``."""
    place = {uri: path for path, uri in PAGES.items()}.get(page, f"docs/{page}")
    return posixpath.normpath(posixpath.join(posixpath.dirname(place), target))


def _in_site(path: str) -> str:
    """The path in the site of a file of the repository."""
    if path.startswith("docs/"):
        return path[len("docs/") :]
    return PAGES.get(path, f"source/{path}")
