"""How many words the pages have, and how many they may have: text that nobody can read is not kept true either."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ("*.md", "docs/**/*.md", "bundles/*/docs/*.md")
MADE = ("docs/keys.md", "docs/api.md", "docs/licences.md", "docs/open_glioma/report/report.md")
"""Pages that a script writes, or a test compares with the code; they are not counted."""
BUNDLES = [paper.parent.name for paper in ROOT.glob("bundles/*/paper.json")]
TARGETS = {
    "README.md": 1010 + 12 * len(BUNDLES),
    "CHANGELOG.md": 1500,
    "CONTRIBUTING.md": 1800,
    **{f"bundles/{name}/docs/README.md": 1800 for name in BUNDLES},
    "docs/open_glioma/README.md": 4000,
    **{f"docs/{name}.md": 1500 for name in ("segment", "train", "evaluate", "monai_label")},
    "docs/which_tool.md docs/weights.md docs/share.md docs/times.md docs/results.md": 3000,
}
"""Page, or several that share a target -> most words, of prose and tables alike."""
TOTAL = 37_500 + 1_800 * len(BUNDLES)


def words() -> None:
    """Print page, words and target; end with status 1 if one is above its target, or all together are."""
    pages = {path.relative_to(ROOT).as_posix(): path for place in PAGES for path in ROOT.glob(place)}
    counts = {name: len(path.read_text("utf-8").split()) for name, path in pages.items() if name not in MADE}
    limits = {name: (sum(counts.pop(page) for page in name.split()), limit) for name, limit in TARGETS.items()}
    total = sum(counts.values()) + sum(count for count, _ in limits.values())
    rows = [(name, count, "") for name, count in sorted(counts.items())]
    rows = [(name, count, limit) for name, (count, limit) in limits.items()] + rows + [("all", total, TOTAL)]
    for name, count, limit in rows:
        print(f"{count:7} {limit:7} {name}")
    over = [name for name, count, limit in rows if limit != "" and count > limit]
    if over:
        raise ValueError(f"more words than their targets: {', '.join(over)}")
