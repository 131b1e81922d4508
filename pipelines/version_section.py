"""The part of a downloaded report that the evaluation could not know: the version's decision and its deployments.

`fmops report` puts it below the report's heading. It uses the page's own classes (evaluation/report.html.j2).
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from pipelines.registry import DIGESTS

MARK = "</header>"
TONES = {"Approved": "good", "Rejected": "bad", "PendingManualApproval": "unclear"}
TITLES = {
    "gate": "Quality gate",
    **{key: f"Digest: {name}" for key, name in DIGESTS.items()},
    "data_sha256": "Data set",
    "definition_sha256": "Pipeline definition",
    "code_training": "Training code",
    "base_model": "Base model",
    "pipeline_execution": "Execution",
}


def add_version(
    report: Path, package: dict[str, Any], deployments: list[dict[str, Any]], words: dict[str, str]
) -> None:
    """Insert the section into report.html; a page without the mark stays as it is."""
    page = report.read_text(encoding="utf-8")
    if MARK in page:
        head, _, tail = page.partition(MARK)
        report.write_text(f"{head}{MARK}\n\n{section(package, deployments, words)}{tail}", encoding="utf-8")


def section(package: dict[str, Any], deployments: list[dict[str, Any]], words: dict[str, str]) -> str:
    """The section as HTML: status and comment, the hashes to compare, and where it was deployed, newest first."""
    status = package["ModelApprovalStatus"]
    metadata = package.get("CustomerMetadataProperties", {})
    gate = [(key.removeprefix("gate_").replace("_", " "), metadata[key]) for key in metadata if key.startswith("gate_")]
    known = [(title, metadata[key]) for key, title in TITLES.items() if metadata.get(key)]
    facts = [*known[:1], *gate, *known[1:]]
    comment = (
        f'<p class="verdict">{escape(package["ApprovalDescription"])}</p>' if "ApprovalDescription" in package else ""
    )
    title = f"Version {package['ModelPackageVersion']} of {package['ModelPackageGroupName']}"
    return (
        '<section aria-labelledby="version">\n'
        f'  <h2 id="version">{escape(title)}</h2>\n'
        f'  <p class="badge {TONES.get(status, "unclear")}">{escape(_spaced(status))}</p>\n  {comment}\n'
        f'  <div class="scroll"><table><tbody>\n{_rows(facts)}  </tbody></table></div>\n'
        f'  <h3 style="margin-top: 20px">Deployments</h3>\n{_deployments(deployments, words)}</section>\n'
    )


def _rows(facts: list[tuple[str, str]]) -> str:
    return "".join(
        f'    <tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>\n' for name, value in facts
    )


def _deployments(deployments: list[dict[str, Any]], words: dict[str, str]) -> str:
    if not deployments:
        return '  <p class="soft small">This version has not been deployed. Approving it deploys it.</p>\n'
    rows = "".join(
        f'    <tr><th scope="row">{escape(item["settings"]["endpoint_name"])}</th>'
        f"<td>{escape(words[item['state']])}</td><td>{escape(item['changed'][:16].replace('T', ' '))}</td>"
        f"<td>{escape(item['reason'])}</td></tr>\n"
        for item in reversed(deployments)
    )
    head = "".join(f'<th scope="col">{title}</th>' for title in ("endpoint", "state", "since (UTC)", "reason"))
    return f'  <div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{rows}  </tbody></table></div>\n'


def _spaced(status: str) -> str:
    return "Pending a reviewer's decision" if status == "PendingManualApproval" else status
