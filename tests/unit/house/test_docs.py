"""Every page is reachable from the index, and every link between pages leads somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def targets(page):
    return [(page.parent / link).resolve() for link in LINK.findall(page.read_text()) if "://" not in link]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in targets(page):
        assert target.exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_every_page_is_in_the_index():
    index = ROOT / "docs/README.md"
    listed = set(targets(index)) | {index}
    assert {p for p in PAGES if "docs" in p.parts} <= listed
