"""Words and pages for what pipelines/look.py found: lines for a terminal, and one self-contained HTML page.

Everything that comes from the rows is escaped by the template (look.html.j2); nothing is fetched by the page.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.look import NEARLY, SPLITS, TOKENS, Look

TEMPLATE = "look.html.j2"
BAR = 40
SHOWN_CHARACTERS = 4000
"""Of the first row and of a rejected one; the rest is counted."""
MOST_FILES, MOST_LANGUAGES, MOST_NAMES = 8, 10, 12
LONG_ROWS = {
    "drop": "left out",
    "truncate-left": "cut at their beginning",
    "truncate-right": "cut at their end",
    "error": "an error that ends training",
}
COUNTED = (
    ("rows_in", "rows"),
    ("rows_out", "good"),
    ("rejected", "rejected"),
    ("duplicates", "duplicates"),
    ("near_duplicates", "near-duplicates"),
    ("filtered", "filtered"),
)
"""What is counted in data_report.json, in the order in which it is shown."""


def lines(look: Look) -> Iterator[str]:
    """The report as text, section by section."""
    yield f"{look.path}: {verdict(look)}"
    if not look.report:
        return
    yield f"\nRead{looked_at(look)}"
    for text in files(look):
        yield f"  {text}"
    for text in columns(look):
        yield f"  {text}"
    yield "\nCounts"
    yield "  " + ", ".join(f"{name} {count}" for name, count in counts(look))
    for reason, count in look.report["reasons"].items():
        yield f"  rejected: {reason} ({count})"
    for reason, count in look.report["taken"].items():
        yield f"  taken out: {reason} ({count})"
    if look.report["masked"]:
        yield "  masked: " + ", ".join(f"{kind} {count}" for kind, count in look.report["masked"].items())
    if look.report["first_rejected"]:
        yield f"  the first rejected row: {look.report['first_rejected']}"
    yield f"\nSplits ({look.report['groups']} groups, none of which stands in two)"
    for name, count, share, wanted in splits(look):
        yield f"  {name:10}  {count:>8}  {share:6.1%}  (asked for: {wanted:.1%})"
    for note in look.report["notes"]:
        yield f"  note: {note}"
    if look.first:
        yield f"\n{first_title(look)}"
        for parts in look.first:
            shown = (_marked(text) if learned else text for text, learned in shortened(parts))
            yield "".join(shown).rstrip("\n")
    if look.lengths:
        yield f"\nLengths in {look.unit} ({length_words(look)})"
        for label, count, bar in histogram(look):
            yield f"  {label:>15}  {count:>8}  {'█' * bar}"
        yield f"  {long_words(look)}"
        for note in look.notes:
            yield f"  training's log would say: {note}"
    if look.languages:
        yield f"\n{language_title(look)}"
        yield "  " + ", ".join(f"{name} {share:.1%}" for name, share in languages(look))


def verdict(look: Look) -> str:
    """One sentence: usable, or why not."""
    if look.problem:
        return f"Prepare refuses it: {look.problem}"
    if look.train_problem:
        return f"Prepare takes it, but Train refuses it: {look.train_problem}"
    return "Prepare takes it."


def looked_at(look: Look) -> str:
    return "" if look.report["whole"] else f" (only the first {look.report['rows_in']} rows were looked at)"


def files(look: Look) -> Iterator[str]:
    """Each file with its format, and what was left out of a folder."""
    found = look.report["files"]
    for file in found[:MOST_FILES]:
        facts = [file["format"], file["packed"], file["encoding"] if file["format"] != "parquet" else ""]
        facts += [f"delimiter {file['delimiter']!r}"] if file["delimiter"] else []
        yield f"{file['file']}: {', '.join(fact for fact in facts if fact)}; {file['rows_in']} rows"
    if len(found) > MOST_FILES:
        yield f"and {len(found) - MOST_FILES} more files"
    for name, why in look.report["left_out"].items():
        yield f"left out: {name}: {why}"


def columns(look: Look) -> Iterator[str]:
    """Which column is read as what, and which are not read at all."""
    for kind in look.report["columns"]:
        read = ", ".join(f"{part} = {column!r}" for part, column in kind["read"].items())
        yield f"{kind['rows']} rows: {read}"
        if kind["ignored"]:
            names = ", ".join(map(repr, kind["ignored"][:MOST_NAMES]))
            more = f", and {len(kind['ignored']) - MOST_NAMES} more" if len(kind["ignored"]) > MOST_NAMES else ""
            yield f"  nothing is read from: {names}{more}"


def counts(look: Look) -> list[tuple[str, int]]:
    """(what, how many); what filters take only where they are on."""
    filters = look.report["settings"]["filters"]
    on = {"near_duplicates": bool(filters["near_duplicates"]), "filtered": bool(look.report["filtered"])}
    found = [(name, look.report[key]) for key, name in COUNTED if on.get(key, True)]
    if look.nearly is not None:
        found.append((f"near-duplicates left in ({NEARLY} alike)", look.nearly))
    return found


def splits(look: Look) -> Iterator[tuple[str, int, float, float]]:
    """(name, rows, their share, the share that pipeline.yaml asks for) of each split."""
    total = max(1, sum(look.report["splits"].values()))
    for name in SPLITS:
        count = look.report["splits"][name]
        yield name, count, count / total, look.shares[name]


def _marked(text: str) -> str:
    """Learned text in brackets; a line break at its end stays outside."""
    body = text.rstrip("\n")
    return f"⟦{body}⟧{text[len(body) :]}"


def first_title(look: Look) -> str:
    what = "The first training row"
    if look.unit == TOKENS:
        return f"{what} as the model sees it, ⟦what is learned⟧, by the template of {look.tokenizer}"
    return f"{what}, its messages without a chat template: {look.why_not}"


def shortened(parts: list[tuple[str, bool]]) -> list[tuple[str, bool]]:
    """The parts up to SHOWN_CHARACTERS, and how much more there is."""
    found, left = [], SHOWN_CHARACTERS
    for text, learned in parts:
        if left > 0:
            found.append((text[:left], learned))
        left -= len(text)
    return found if left >= 0 else [*found, (f" ... and {-left} characters more", False)]


def length_words(look: Look) -> str:
    lengths = sorted(look.lengths)
    middle, high = lengths[len(lengths) // 2], lengths[min(len(lengths) - 1, int(0.95 * len(lengths)))]
    return f"{len(lengths)} examples: median {middle}, 95% up to {high}, longest {lengths[-1]}"


def histogram(look: Look) -> list[tuple[str, int, int]]:
    """(from-to, how many, length of its bar) by powers of two, from the first that holds any to the last."""
    widths: dict[int, int] = {}
    for length in look.lengths:
        widths[length.bit_length()] = widths.get(length.bit_length(), 0) + 1
    most = max(widths.values())
    found = []
    for bits in range(min(widths), max(widths) + 1):
        count = widths.get(bits, 0)
        label = f"{1 << bits >> 1} to {(1 << bits) - 1}" if bits else "0"
        found.append((label, count, -(-count * BAR // most)))
    return found


def long_words(look: Look) -> str:
    """How many rows are over training.max_seq_length, and what becomes of them."""
    limit = f"training.max_seq_length ({look.max_seq_length} tokens)"
    if look.unit != TOKENS:
        return f"Which rows are longer than {limit} is not known: {look.why_not}."
    if not look.long:
        return f"None is longer than {limit}."
    becomes = (
        "learned in windows of that length" if look.texts else f"{LONG_ROWS[look.long_rows]} (training.long_rows: "
        f"{look.long_rows})"
    )  # fmt: skip
    return f"{look.long} of {len(look.lengths)} are longer than {limit}: {becomes}."


def language_title(look: Look) -> str:
    of = f"of {sum(look.languages.values())} rows"
    if look.by_script:
        return f"Scripts {of}, by their letters (languages need the package py3langid)"
    return f"Languages {of}, guessed by py3langid"


def languages(look: Look) -> list[tuple[str, float]]:
    total = sum(look.languages.values())
    found = [(name, count / total) for name, count in look.languages.items()]
    rest = sum(share for _, share in found[MOST_LANGUAGES:])
    return [*found[:MOST_LANGUAGES], *([("others", rest)] if rest else [])]


def page(look: Look) -> str:
    """The report as one HTML page that needs nothing else. Raises UserError without jinja2."""
    from configuration.errors import UserError

    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError:
        raise UserError('--html needs jinja2, which comes with pip install "fmops[local]"') from None
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    context: dict[str, Any] = {"look": look, "verdict": verdict(look)}
    if look.report:
        context |= {
            "looked_at": looked_at(look),
            "files": list(files(look)),
            "kinds": look.report["columns"],
            "counts": counts(look),
            "splits": list(splits(look)),
            "rejected": [{**row, "row": _cut(json.dumps(row["row"], ensure_ascii=False))} for row in look.rejected],
        }
    if look.first:
        context |= {"first_title": first_title(look), "first": [shortened(parts) for parts in look.first]}
    if look.lengths:
        context |= {
            "length_words": length_words(look),
            "histogram": histogram(look),
            "long_words": long_words(look),
            "bar": BAR,
        }
    if look.languages:
        context |= {"language_title": language_title(look), "languages": languages(look)}
    return environment.get_template(TEMPLATE).render(context)


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]} ..."
