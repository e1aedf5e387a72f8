"""All parts of a release have the same version."""

import json
import re
from pathlib import Path

from common import __version__

ROOT = Path(__file__).parents[1]


def test_package_bundles_citation_and_changelog_have_one_version():
    metadata = [json.loads(path.read_text()) for path in sorted(ROOT.glob("bundles/*/configs/metadata.json"))]
    assert [(meta["version"], next(iter(meta["changelog"]))) for meta in metadata] == [(__version__, __version__)] * 5
    citation = dict(re.findall(r"^([\w-]+): (\S+)$", (ROOT / "CITATION.cff").read_text(), flags=re.M))
    headings = re.findall(r"^## \[(.*?)\](?: - (\S+))?$", (ROOT / "CHANGELOG.md").read_text(), flags=re.M)
    assert headings[0] == ("Unreleased", "")
    assert headings[1] == (__version__, citation["date-released"])
    assert citation["version"] == __version__
    zenodo = json.loads((ROOT / ".zenodo.json").read_text())
    assert (zenodo["version"], zenodo["publication_date"]) == (__version__, citation["date-released"])
    assert f'title: "{zenodo["title"]}"' in (ROOT / "CITATION.cff").read_text()


def test_the_guide_names_the_newest_package():
    assert set(re.findall(r"_v(\d\S+?)\.zip", (ROOT / "docs" / "share.md").read_text())) == {__version__}
