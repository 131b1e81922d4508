"""Renders report.html, one page that needs nothing else. Runs in the Evaluate step's processing container.

Everything that comes from data or models is escaped by the template (report.html.j2); only the pictures (charts.py) are
markup.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import charts
from intervals import BASE, CANDIDATE, FEW_SHOT

from common.metric_names import METRICS

TEMPLATE = "report.html.j2"
MODELS = {CANDIDATE: "tuned", FEW_SHOT: "base with examples", BASE: "base"}
STYLES = {CANDIDATE: "tuned", FEW_SHOT: "few", BASE: "base"}
LABELS = {metric.name: metric.label for metric in METRICS}
SAMPLES = 6
MOST_SLICES = 40


def render(evaluation: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> str:
    """Returns the page for an evaluation.json and its predictions."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=charts.percent, points=points, pretty=pretty)
    headline = headline_metric(evaluation)
    context = {
        "evaluation": evaluation,
        "verdict": verdict(evaluation, headline),
        "headline": LABELS[headline],
        "headline_metric": evaluation["metrics"][headline],
        "models": MODELS,
        "styles": STYLES,
        "bars": bar_chart(evaluation),
        "costs": costs(evaluation),
        "curves": loss_curves(evaluation.get("training")),
        "slices": slice_rows(evaluation, headline),
        "samples": samples(records),
        "facts": facts(evaluation),
        "labels": LABELS,
    }
    return environment.get_template(TEMPLATE).render(context)


def points(value: float) -> str:
    """0.123 -> +12.3 points"""
    return f"{100 * value:+.1f} points"


def pretty(text: str) -> str:
    """JSON with a blank after commas and colons, so that lines can break; other text as it is."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else text


def headline_metric(evaluation: Mapping[str, Any]) -> str:
    """Exact match where any model reaches it, else token F1: long texts are never the same word for word."""
    found = evaluation["metrics"]["exact_match"]
    return "exact_match" if any(found[model]["value"] > 0.02 for model in MODELS) else "token_f1"


def verdict(evaluation: Mapping[str, Any], metric: str) -> dict[str, str]:
    """Returns `tone` (good, unclear, bad), a short `word` and a `sentence`."""
    found = evaluation["metrics"][metric]
    gain, tuned = found["improvement"], found[CANDIDATE]["value"]
    better = max((BASE, FEW_SHOT), key=lambda model: found[model]["value"])
    how = "with examples in its prompt" if better == FEW_SHOT else "asked the same way"
    if gain["low"] > 0:
        tone, word = "good", "Better than its base"
    elif gain["high"] < 0:
        tone, word = "bad", "Worse than its base"
    else:
        tone, word = "unclear", "No clear difference"
    sentence = (
        f"{LABELS[metric]} on {evaluation['rows']} rows that training never saw: {charts.percent(tuned)} tuned, "
        f"{charts.percent(found[better]['value'])} for the base model {how}. "
        f"The difference is {points(gain['value'])}, 95% interval {points(gain['low'])} to {points(gain['high'])}."
    )
    return {"tone": tone, "word": word, "sentence": sentence}


def bar_chart(evaluation: Mapping[str, Any]) -> Any:
    from markupsafe import Markup

    groups = [
        (metric.label, [(STYLES[model], MODELS[model], evaluation["metrics"][metric.name][model]) for model in MODELS])
        for metric in METRICS
        if metric.name in evaluation["metrics"] and metric.share
    ]
    return Markup(charts.bars("Quality of the tuned model and its base, with 95% intervals", groups))  # noqa: S704 (charts escapes)


def costs(evaluation: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Metrics where lower is better."""
    found = evaluation["metrics"]
    return [(metric.label, found[metric.name]) for metric in METRICS if metric.lower_is_better and metric.name in found]


def loss_curves(training: Mapping[str, Any] | None) -> Any:
    """The picture of training_report.json's history; None without two points of either loss."""
    from markupsafe import Markup

    history = (training or {}).get("history") or []
    series = []
    for style, label, key in (("base", "training", "train_loss"), ("tuned", "validation", "validation_loss")):
        line = [(entry["step"], float(entry[key])) for entry in history if isinstance(entry.get(key), (int, float))]
        if len(line) > 1:
            series.append((style, label, line))
    if not series:
        return None
    return Markup(charts.curves("Loss during training", series, "optimizer step", "loss (nats per token)"))  # noqa: S704


def slice_rows(evaluation: Mapping[str, Any], metric: str) -> list[dict[str, Any]]:
    """Slices, the tuned model's weakest first."""
    from markupsafe import Markup

    ordered = sorted(evaluation["slices"], key=lambda entry: entry["metrics"][metric][CANDIDATE]["value"])
    rows = []
    for entry in ordered[:MOST_SLICES]:
        found = entry["metrics"][metric]
        spread = charts.spread(
            f"{entry['name']}: "
            + ", ".join(f"{MODELS[model]} {charts.percent(found[model]['value'])}" for model in MODELS),
            [(STYLES[model], found[model]) for model in MODELS],
        )
        rows.append({"name": entry["name"], "rows": entry["rows"], "found": found, "spread": Markup(spread)})  # noqa: S704
    return rows


def samples(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Groups of rows to read: where tuned and base differ, and where both are wrong."""

    def right(record: Mapping[str, Any], *models: str) -> bool:
        return any(record["metrics"][model]["exact_match"] == 1 for model in models)

    groups = {
        "Tuned wrong, base right": [r for r in records if not right(r, CANDIDATE) and right(r, BASE, FEW_SHOT)],
        "Both wrong": [r for r in records if not right(r, CANDIDATE, BASE, FEW_SHOT)],
        "Tuned right, base wrong": [r for r in records if right(r, CANDIDATE) and not right(r, BASE, FEW_SHOT)],
        "Both right": [r for r in records if right(r, CANDIDATE) and right(r, BASE, FEW_SHOT)],
    }
    return [{"title": title, "count": len(group), "records": group[:SAMPLES]} for title, group in groups.items()]


def facts(evaluation: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Tables of what was compared and how."""
    settings, training = evaluation["settings"], evaluation.get("training") or {}
    seconds = settings.get("seconds", {})
    tables = [
        ("Models", [("Tuned", evaluation["models"]["candidate"]), ("Base", evaluation["models"]["base"])]),
        (
            "Scoring",
            [
                ("Test rows scored", f"{evaluation['rows']} of {settings.get('test_rows', '?')}"),
                ("Examples shown to the base model", str(settings.get("few_shot"))),
                ("Most tokens of an answer", str(settings.get("max_new_tokens"))),
                ("Rows at once", str(settings.get("batch_size"))),
                ("Seed", str(settings.get("seed"))),
                ("Ran on", f"{settings.get('device')}, {settings.get('precision')}"),
                ("Libraries", f"torch {settings.get('torch')}, transformers {settings.get('transformers')}"),
                ("Seconds", ", ".join(f"{MODELS.get(name, name)} {value}" for name, value in seconds.items())),
            ],
        ),
    ]
    wanted = (
        "method", "steps", "epochs", "train_rows", "validation_rows", "rows_left_out", "completion_tokens",
        "train_loss", "best_validation_loss", "completion_tokens_per_second", "tokens_per_second", "mfu",
        "peak_memory_gib", "seconds", "list_price_usd_per_hour", "usd_per_million_tokens", "stopped_early",
    )  # fmt: skip
    known = [
        (name.replace("_", " ").capitalize(), _fact(training[name]))
        for name in wanted
        if training.get(name) is not None
    ]
    chosen = [(name, _fact(value)) for name, value in sorted((training.get("hyperparameters") or {}).items())]
    return tables + [(title, table) for title, table in (("Training", known), ("Hyperparameters", chosen)) if table]


def _fact(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return charts.number(round(value, 4)) if isinstance(value, float) else str(value)
