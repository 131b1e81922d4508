"""The version's part of a downloaded report."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from pipelines.deployments import WORDS
from pipelines.version_section import add_version, section

PACKAGE: dict[str, Any] = {
    "ModelPackageVersion": 3,
    "ModelPackageGroupName": "fmops-models",
    "ModelApprovalStatus": "Rejected",
    "ApprovalDescription": "<script>alert(1)</script> & more",
    "CustomerMetadataProperties": {
        "gate": "The gate passed: 1 of 1 rules met over 96 rows.",
        "gate_exact_match": "0.6 of at least 0.5",
    },
}
DEPLOYMENT = {
    "settings": {"endpoint_name": "chat"},
    "state": "rolled_back",
    "changed": "2026-11-24T20:05:00.000+00:00",
    "reason": "alarm <x>",
}


class Balance(HTMLParser):
    """Fails on tags that are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_it_is_well_formed_and_what_people_wrote_stays_text() -> None:
    html = section(PACKAGE, [DEPLOYMENT], WORDS)
    page = Balance()
    page.feed(html)
    assert page.open == []
    assert "<script>" not in html
    for words in ("<script>alert(1)</script> & more", "Rejected", "0.6 of at least 0.5", "rolled back", "alarm <x>"):
        assert words in page.text


def test_a_version_that_was_never_deployed_says_how_to() -> None:
    assert "Approving it deploys it" in section(PACKAGE, [], WORDS)


def test_it_goes_below_the_heading_and_leaves_foreign_pages_alone(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("<main><header>x</header><p>rest</p></main>")
    add_version(page, PACKAGE, [DEPLOYMENT], WORDS)
    text = page.read_text()
    assert text.index("</header>") < text.index("Version 3 of fmops-models") < text.index("rest")
    page.write_text("<p>something else</p>")
    add_version(page, PACKAGE, [DEPLOYMENT], WORDS)
    assert page.read_text() == "<p>something else</p>"
