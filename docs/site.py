"""MkDocs hooks: add the pages that lie outside ``docs/``, and rewrite the links between files of the repository.

All pages but the home can also be read in the repository, so their links are relative paths between its files. The
reference has a page of all verbs, and one for each network, each baseline, and each module of which a reader writes a
name: in a config, or in Python as guides show it. The page of all keys gets their defaults from the bundles' configs.
"""

import ast
import base64
import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(!?)\[((?:[^][]|\[[^]]*\])*)\]\(([^)\s]+)\)")
"""A link or a picture. Groups: ``!`` for a picture, the text (which may contain brackets), the target."""
SOURCE = re.compile(r'(src|srcset)="([^":]+)"')
"""A picture's file in HTML. Groups: the attribute, the file."""
FENCED = re.compile(r"(^```.*?^```$)", flags=re.M | re.S)
WINGS = ("common", "mmb")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for wing in WINGS
    for path in sorted(ROOT.glob(f"{wing}/**/*.py"))
    if path.stem != "__main__" and (path.parent / "__init__.py").is_file() and path.parent.name != "verbs"
}
NAME = r"(?:common|mmb)(?:\.\w+)+"
VERBS = sorted(path.stem for path in ROOT.glob("mmb/verbs/*.py") if not path.stem.startswith("_"))


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add methods and reference to the navigation, and a link to edit each page if the repository has an address."""
    reference, methods = (part[name] for name in ("Reference", "Methods") for part in config.nav if name in part)
    names = [path.parent.name for path in sorted(ROOT.glob("bundles/*/paper.json"))]
    methods += [f"papers/{name}/about.md" for name in names]
    papers = [f"papers/{name}.md" for name in names if (ROOT / "docs" / "papers" / f"{name}.md").is_file()]
    methods.append({"Papers and this implementation": papers})
    reference.append({"All verbs": "reference/verbs.md"})
    parts: dict[str, list[Any]] = {}
    for module in _read_modules():
        part = module.split(".")[1]
        parts.setdefault(part, []).append({module: _place_of(module)})
    reference += [{part.capitalize(): pages} for part, pages in sorted(parts.items())]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and pictures that lie outside ``docs/``, notebooks, and the reference."""
    for file in (file for path in ROOT.glob("docs/*.ipynb") for file in _notebook(path, config)):
        files.append(file)
    folders = [file for file in files if file.src_uri.endswith("/README.md")]
    for file in folders:
        files.remove(file)
    outside = [*ROOT.glob("*.md"), *ROOT.glob("bundles/*/docs/*")]
    for path in (*outside, *(Path(file.abs_src_path) for file in folders)):
        files.append(File.generated(config, place(path), abs_src_path=str(path)))
    for module in _read_modules():
        files.append(File.generated(config, _place_of(module), content=f"# {module}\n\n::: {module}\n"))
    verbs = "\n\n".join(f"## {verb}\n\n::: mmb.verbs.{verb}.{verb}" for verb in VERBS)
    files.append(File.generated(config, "reference/verbs.md", content=f"# All verbs: `mmb VERB`\n\n{verbs}\n"))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links to files: to a page of the site, else to the published repository, else keep only the text."""
    source = page.file.abs_src_path and Path(page.file.abs_src_path)
    address = config.repo_url and config.repo_url.rstrip("/")
    page.edit_url = f"{address}/edit/main/{source.relative_to(ROOT).as_posix()}" if address and source else None
    page.meta["search"] = {"exclude": True} if "/report/" in page.file.src_uri else {"boost": _boost(page)}
    if page.file.src_uri == "keys.md":
        markdown = _with_defaults(markdown)
    if page.file.src_uri.startswith("reference/"):  # its links are those of the site
        return markdown
    here = source.parent if source else ROOT / "docs"

    def there(file: Path) -> str:
        return posixpath.relpath(place(file), posixpath.dirname(page.file.src_uri))

    def lead(link: re.Match[str]) -> str:
        picture, text, target = link.groups()
        path, mark, anchor = target.partition("#")
        if not path or re.match("[a-z]+:", target):
            return link[0]
        file = (here / path).resolve()
        if files.get_file_from_path(place(file)):
            return f"{picture}[{text}]({there(file)}{mark}{anchor})"
        if address:
            return f"[{text}]({address}/blob/main/{file.relative_to(ROOT).as_posix()})"
        return text

    if address:
        markdown = re.sub(r"REPOSITORY is the address of [^.]*\. ?", "", markdown).replace("REPOSITORY", address)
    markdown = SOURCE.sub(lambda part: f'{part[1]}="{there((here / part[2]).resolve())}"', markdown)
    markdown = markdown.replace("<details>", '<details markdown="1">')  # its content is Markdown, as on GitHub
    return "".join(part if part.startswith("```") else LINK.sub(lead, part) for part in FENCED.split(markdown))


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Keep options and file names in inline code on one line, or break paths after a slash."""

    def whole(code: re.Match[str]) -> str:
        words = re.sub(r"[^\s/]*[-_.][^\s/]*/?", lambda word: f'<span class="whole">{word[0]}</span><wbr>', code[1])
        return f"<code>{words}</code>"

    parts = re.split(r"(<pre.*?</pre>)", html, flags=re.S)
    return "".join(part if part.startswith("<pre") else re.sub("<code>([^<&]*)</code>", whole, part) for part in parts)


def place(path: Path) -> str:
    """Return the path that a file of the repository has in the site, if the site contains it.

    The README of a folder is not called so there, since the navigation hides the first README of a section.
    """
    name = re.sub("(^|/)README.md$", r"\1about.md", path.relative_to(ROOT).as_posix().replace(".ipynb", ".md"))
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


def _boost(page: Page) -> float:
    """Return what a page counts in a search: guides come first, then what is looked up, then the code."""
    if page.file.src_uri.startswith(("reference/", "CHANGELOG")):
        return 0.1
    return 2 if page.parent and page.parent.title == "Guides" and page.title != "When it refuses" else 1


def _place_of(module: str) -> str:
    return f"reference/{module}.md"


def _read_modules() -> list[str]:
    """Return the modules of networks and baselines, and those that define a name in a config or a guide's Python."""
    guides = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("docs/*.ipynb")]
    imports = re.findall(rf"^.*?\bfrom ({NAME}) import ([\w, ]+)", "\n".join(map(Path.read_text, guides)), flags=re.M)
    names = {f"{package}.{name.strip()}" for package, names in imports for name in names.split(",")}
    configs = [*ROOT.glob("bundles/*/configs/*.json"), *ROOT.glob("bundles/*/configs/recipes/*.json")]
    names |= {name for path in configs for name in re.findall(NAME, path.read_text())}
    names |= {*re.findall(rf'"({NAME})"', (ROOT / "common/networks/build.py").read_text())}  # the table of all
    names |= {module for module in MODULES if module.startswith("common.baselines.")}
    return sorted({module for name in names if (module := _definer(name)) and MODULES[module].stem != "__init__"})


def _definer(name: str) -> str | None:
    """Return the module that defines a name, which its package may only import; None if there is none."""
    module = name
    while module not in MODULES:
        if "." not in module:
            return None
        module = module.rpartition(".")[0]
    last = name.removeprefix(module).split(".")[1:2]
    for node in ast.parse(MODULES[module].read_text()).body:
        if isinstance(node, ast.ImportFrom) and last and last[0] in {part.name for part in node.names}:
            return _definer(f"{node.module}.{last[0]}")
        if isinstance(node, ast.Assign) and last and ast.unparse(node.targets[0]) == "_MODULES":
            for place, names in ast.literal_eval(node.value).items():
                if last[0] in names:
                    return _definer(f"{module}.{place}.{last[0]}")
    return module


def _with_defaults(markdown: str) -> str:
    """Add a column with the defaults of the bundles to the tables of keys, each below a heading that names its file."""
    lines, configs = [], {}
    for line in markdown.splitlines():
        if heading := re.match(r"#+ .*`(\w+\.json)`", line):
            paths = sorted(ROOT.glob(f"bundles/*/configs/{heading[1]}"))
            configs = {path.parts[-3]: json.loads(path.read_text()) for path in paths}
        if row := re.match(r"\| `(\w+)` \|", line):
            line = f"{row[0]} {_default(row[1], configs)} |{line[row.end() :]}"
        elif configs and line.startswith("| key |"):
            line = line.replace("| key |", "| key | default |")
        elif configs and line.startswith("|---|"):
            line = f"|---{line}"
        lines.append(line)
    return "\n".join(lines)


def _default(key: str, configs: dict[str, dict[str, Any]]) -> str:
    """Return a key's default, or those of the bundles if they differ."""
    bundles: dict[str, list[str]] = {}
    for bundle, config in configs.items():
        if key in config:
            bundles.setdefault(json.dumps(config[key]), []).append(bundle)
    said = {value: f"`{value}`" if len(value) < 60 else "see the file" for value in bundles}
    everywhere = len(bundles) == 1 and len(*bundles.values()) == len(configs)
    return "<br>".join(
        said[value] if everywhere else f"{', '.join(names)}: {said[value]}" for value, names in bundles.items()
    )
