"""MkDocs hooks: add the pages that lie outside ``docs/``, and rewrite the links between files of the repository.

All pages can also be read in the repository, so their links are relative paths between its files.
"""

import base64
import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(!?)\[((?:[^][]|\[[^]]*\])*)\]\(([^)\s]+)\)")
"""A link or a picture. Groups: ``!`` for a picture, the text (which may contain brackets), the target."""
FENCED = re.compile(r"(^```.*?^```$)", flags=re.M | re.S)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and pictures that lie outside ``docs/``, notebooks, and a page for each module of the reference."""
    for file in (file for path in ROOT.glob("docs/*.ipynb") for file in _notebook(path, config)):
        files.append(file)
    for path in (*ROOT.glob("*.md"), *ROOT.glob("bundles/*/docs/*")):
        files.append(File.generated(config, place(path), abs_src_path=str(path)))
    for page in _pages(config.nav):
        if page.startswith("reference/"):
            module = page.removeprefix("reference/").removesuffix(".md")
            files.append(File.generated(config, page, content=f"# {module}\n\n::: {module}\n"))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links to files: to a page of the site, else to the published repository, else keep only the text."""
    here = Path(page.file.abs_src_path or ROOT / "docs" / page.file.src_uri).parent

    def lead(link: re.Match[str]) -> str:
        picture, text, target = link.groups()
        path, mark, anchor = target.partition("#")
        if not path or re.match("[a-z]+:", target):
            return link[0]
        file = (here / path).resolve()
        if files.get_file_from_path(place(file)):
            there = posixpath.relpath(place(file), posixpath.dirname(page.file.src_uri))
            return f"{picture}[{text}]({there}{mark}{anchor})"
        if config.repo_url:
            return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{file.relative_to(ROOT).as_posix()})"
        return text

    markdown = markdown.replace("<details>", '<details markdown="1">')  # its content is Markdown, as on GitHub
    return "".join(part if part.startswith("```") else LINK.sub(lead, part) for part in FENCED.split(markdown))


def place(path: Path) -> str:
    """Return the path that a file of the repository has in the site, if the site contains it."""
    name = path.relative_to(ROOT).as_posix().replace(".ipynb", ".md")
    return re.sub(r"^bundles/(\w+)/docs/", r"papers/\1/", re.sub(r"^docs/", "", name))


def _notebook(path: Path, config: MkDocsConfig) -> Iterator[File]:
    """Yield a notebook as a page with its stored outputs, and the pictures among these."""
    parts = []
    for number, cell in enumerate(json.loads(path.read_text())["cells"]):
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            data = {
                kind: "".join(text) for kind, text in output.get("data", {"text/plain": output.get("text")}).items()
            }
            if "image/png" in data:
                picture = f"{path.stem}_{number}.png"
                yield File.generated(config, picture, content=base64.b64decode(data["image/png"]))
                parts.append(f"![Output of the code above]({picture})")
            elif "text/markdown" in data:
                parts.append(data["text/markdown"])
            else:
                parts.append(f"```text\n{data['text/plain']}\n```")
    yield File.generated(config, place(path), content="\n\n".join(parts))


def _pages(nav: list | dict | str) -> Iterator[str]:
    """Yield the pages named in a part of the navigation."""
    if isinstance(nav, str):
        yield nav
    else:
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from _pages(part)
