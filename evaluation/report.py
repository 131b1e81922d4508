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
from decision import number
from intervals import BASE, CANDIDATE, CHAMPION, FEW_SHOT
from report_facts import facts, models, served

from common.metric_names import Metric, metrics_of

TEMPLATE = "report.html.j2"
STYLES = {CANDIDATE: "tuned", CHAMPION: "champion", FEW_SHOT: "few", BASE: "base"}
# What a row is called, what its training loss is, and when one answer is right.
WORDS = {
    "messages": ("rows", "Mean loss over completion tokens.", "the same text, or the same JSON value"),
    "preference": (
        "rows",
        "Mean loss of a pair of answers; it begins at 0.693, where both models prefer alike.",
        "the chosen answer has the higher probability per token",
    ),
    "text": ("texts", "Mean loss over tokens.", ""),
}
SAMPLES = 6
MOST_SLICES = 40
MOST_LABELS, MOST_MISTAKES = 60, 15


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
    headline = metrics_of(evaluation)[headline_metric(evaluation)]
    environment.filters.update(pretty=pretty, shown=lambda number: shown(headline, number))
    noun, loss, right = WORDS[evaluation["kind"]]
    alone = list(models(evaluation)) == [CANDIDATE]
    context = {
        "evaluation": evaluation,
        "verdict": verdict(evaluation, headline),
        "headline": headline.label,
        "headline_metric": evaluation["metrics"][headline.name],
        "most_labels": MOST_LABELS,
        "most_mistakes": MOST_MISTAKES,
        "noun": noun,
        "loss": loss,
        "right": right,
        "right_metric": right_metric(evaluation),
        "models": models(evaluation),
        "styles": STYLES,
        "bars": bar_chart(evaluation),
        "tables": tables(evaluation),
        "curves": loss_curves(evaluation),
        "slices": slice_rows(evaluation, headline),
        "alone": alone,
        "who": "model" if alone else "tuned model",
        "served": served(evaluation),
        "judge": evaluation.get("judge"),
        "judge_rows": judge_rows(evaluation),
        "labels_table": label_rows(evaluation),
        "mistakes": mistakes(evaluation),
        "samples": samples(records, right_metric(evaluation)),
        "gate": evaluation["gate"],
        "power": power(evaluation),
        "counted": counted(evaluation),
        "facts": facts(evaluation),
    }
    return environment.get_template(TEMPLATE).render(context)


def shown(metric: Metric, value: float) -> str:
    """A value as the page writes it: a share in percent, a loss with three places."""
    return charts.percent(value) if metric.share else f"{value:.3f}"


def difference(metric: Metric, value: float) -> str:
    """A gain: 0.123 -> +12.3 points, of a loss +0.123."""
    return f"{100 * value:+.1f} points" if metric.share else f"{value:+.3f}"


def pretty(text: str) -> str:
    """JSON with a blank after commas and colons, so that lines can break; other text as it is."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else text


def headline_metric(evaluation: Mapping[str, Any]) -> str:
    """What was trained for: of texts the loss, of preferences their share; of answers exact match where any model
    reaches it, else token F1: long texts are never the same word for word."""
    found = evaluation["metrics"]
    if evaluation["kind"] == "text":
        return "validation_loss"
    if evaluation["kind"] == "preference":
        return "preference_accuracy"
    seen = any(found["exact_match"][model]["value"] > 0.02 for model in models(evaluation))
    return "exact_match" if seen else "token_f1"


def right_metric(evaluation: Mapping[str, Any]) -> str:
    """Which metric of a row says whether a model was right; empty for texts."""
    return {"messages": "exact_match", "preference": "preference_accuracy"}.get(evaluation["kind"], "")


def counted(evaluation: Mapping[str, Any]) -> str:
    """How many rows there are, and in how many groups of rows that resemble each other: "96 rows in 12 groups"."""
    rows, groups = evaluation["rows"], evaluation.get("groups", evaluation["rows"])
    return f"{rows} {WORDS[evaluation['kind']][0]}" + (f" in {groups} groups" if groups < rows else "")


def of_rows(found: Mapping[str, Any]) -> str:
    """ "of 60 rows" for a metric that not all rows have."""
    return f"of {found['rows']} rows" if "rows" in found else ""


def verdict(evaluation: Mapping[str, Any], metric: Metric) -> dict[str, str]:
    """Returns `tone` (good, unclear, bad), a short `word` and a `sentence`."""
    found = evaluation["metrics"][metric.name]
    tuned, among = found[CANDIDATE]["value"], f"{metric.label} on {counted(evaluation)}"
    if "improvement" not in found:
        sentence = f"{among}: {shown(metric, tuned)}. Nothing was asked beside it."
        return {"tone": "unclear", "word": "Scored alone", "sentence": sentence}
    gain = found["improvement"]
    choose = min if metric.lower_is_better else max
    better = choose((model for model in (BASE, FEW_SHOT) if model in found), key=lambda model: found[model]["value"])
    how = " with examples in its prompt" if better == FEW_SHOT else " asked the same way"
    if evaluation["kind"] == "text":
        how = ""
    if gain["low"] > 0:
        tone, word = "good", "Better than its base"
    elif gain["high"] < 0:
        tone, word = "bad", "Worse than its base"
    else:
        tone, word = "unclear", "No clear difference"
    sentence = (
        f"{among} that training never saw: "
        f"{shown(metric, tuned)} tuned, {shown(metric, found[better]['value'])} for the base model{how}. "
        f"The gain is {difference(metric, gain['value'])}, 95% interval {difference(metric, gain['low'])} to "
        f"{difference(metric, gain['high'])}."
    )
    return {"tone": tone, "word": word, "sentence": sentence}


def power(evaluation: Mapping[str, Any]) -> str:
    """What the rules could not have seen, with the variance that was found: "exact_match 0.06 beyond ..."."""
    seen = [
        f"{rule['rule'].split()[0]} {number(rule['smallest_seen'])}"
        for rule in evaluation["gate"]["rules"]
        if rule.get("smallest_seen")
    ]
    if not seen:
        return ""
    return (
        f"With {counted(evaluation)} as different as these, a rule sees in four runs of five what lies so far beyond "
        f"its margin: {', '.join(dict.fromkeys(seen))}."
    )


def bar_chart(evaluation: Mapping[str, Any]) -> Any:
    """The picture of all shares where more is better; None where there are none."""
    from markupsafe import Markup

    asked = models(evaluation)
    groups = [
        (metric.label, of_rows(found), [(STYLES[model], name, found[model]) for model, name in asked.items()])
        for metric in metrics_of(evaluation).values()
        if metric.share and not metric.lower_is_better and (found := evaluation["metrics"].get(metric.name))
    ]
    if not groups:
        return None
    return Markup(charts.bars("Quality of the tuned model and its base, with 95% intervals", groups))  # noqa: S704 (charts escapes)


def tables(evaluation: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str, dict[str, list[str]]]]]]:
    """What the picture doesn't hold: (heading, [(label, note, {model or "improvement": [value, low, high]})])."""
    found = evaluation["metrics"]
    rest = [
        metric
        for metric in metrics_of(evaluation).values()
        if metric.name in found and (metric.lower_is_better or not metric.share)
    ]
    made = []
    for heading, lower in (("Lower is better", True), ("Higher is better", False)):
        rows = [
            (metric.label, of_rows(found[metric.name]), written(metric, found[metric.name]))
            for metric in rest
            if metric.lower_is_better == lower
        ]
        if rows:
            made.append((heading, rows))
    return made


def written(metric: Metric, found: Mapping[str, Any]) -> dict[str, list[str]]:
    """A metric's estimates as the page writes them: value, low, high."""
    return {
        name: [shown(metric, estimate[key]) for key in ("value", "low", "high")]
        for name, estimate in found.items()
        if name != "rows"
    }


def loss_curves(evaluation: Mapping[str, Any]) -> Any:
    """The picture of training_report.json's history; None without two points of either loss."""
    from markupsafe import Markup

    history = (evaluation.get("training") or {}).get("history") or []
    series = []
    for style, label, key in (("base", "training", "train_loss"), ("tuned", "validation", "validation_loss")):
        line = [(entry["step"], float(entry[key])) for entry in history if isinstance(entry.get(key), (int, float))]
        if len(line) > 1:
            series.append((style, label, line))
    if not series:
        return None
    unit = "loss (per pair)" if evaluation["kind"] == "preference" else "loss (nats per token)"
    return Markup(charts.curves("Loss during training", series, "optimizer step", unit))  # noqa: S704


def slice_rows(evaluation: Mapping[str, Any], metric: Metric) -> list[dict[str, Any]]:
    """Slices, the tuned model's weakest first; of a loss there is no picture."""
    from markupsafe import Markup

    sign, asked = -1 if metric.lower_is_better else 1, models(evaluation)
    ordered = sorted(evaluation["slices"], key=lambda entry: sign * entry["metrics"][metric.name][CANDIDATE]["value"])
    rows = []
    for entry in ordered[:MOST_SLICES]:
        found = entry["metrics"][metric.name]
        spread = ""
        if metric.share:
            spread = charts.spread(
                f"{entry['name']}: "
                + ", ".join(f"{name} {charts.percent(found[model]['value'])}" for model, name in asked.items()),
                [(STYLES[model], found[model]) for model in asked],
            )
        rows.append({"name": entry["name"], "rows": entry["rows"], "found": found, "spread": Markup(spread)})  # noqa: S704
    return rows


def judge_rows(evaluation: Mapping[str, Any]) -> list[tuple[str, int]]:
    """What came of the pairs that a judge saw; the counts add up to all of them."""
    judge = evaluation.get("judge")
    if not judge:
        return []
    agreed = judge["ties"] - sum(judge["of_ties"].values())
    return [
        ("the tuned answer is better", judge["wins"]),
        ("the base's answer is better", judge["losses"]),
        ("a tie", agreed),
        ("a tie, since the verdict changed with the order", judge["of_ties"]["orders_disagree"]),
        ("a tie, since both answers are the same", judge["of_ties"]["same_answer"]),
        ("left out: it did not want to judge", judge["left_out"]["abstained"]),
        ("left out: a reply without a verdict", judge["left_out"]["unparsed"]),
        ("left out: it could not be asked", judge["left_out"]["failed"]),
    ]


def label_rows(evaluation: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Labels, the tuned model's weakest first; those that no target of the test rows has come last."""
    found = (evaluation.get("labels") or {}).get("labels", ())
    return sorted(found, key=lambda entry: (not entry["rows"], entry[CANDIDATE]["f1"], entry["label"]))


def mistakes(evaluation: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What the tuned model took for what, the most frequent first."""
    pairs = (evaluation.get("labels") or {}).get("confusion", {}).get(CANDIDATE, ())
    return [pair for pair in pairs if pair["answer"] != pair["target"]]


def samples(records: Sequence[Mapping[str, Any]], metric: str) -> list[dict[str, Any]]:
    """Groups of rows to read: where tuned and base differ, and where both are wrong; of texts where tuning did most."""

    def right(record: Mapping[str, Any], *models: str) -> bool:
        scored = record["metrics"]
        return any(scored[model][metric] == 1 for model in models if model in scored)

    def gain(record: Mapping[str, Any]) -> float:
        return float(record["metrics"][BASE]["loss"] - record["metrics"][CANDIDATE]["loss"])

    if not metric:
        ordered = sorted(records, key=gain)
        worse = [record for record in ordered if gain(record) < 0]
        better = [record for record in reversed(ordered) if gain(record) > 0]
        return [
            {"title": title, "count": len(group), "records": group[:SAMPLES]}
            for title, group in (("Worse than its base", worse), ("Better than its base", better))
        ]

    if records and list(records[0]["metrics"]) == [CANDIDATE]:
        wrong, fine = ([r for r in records if right(r, CANDIDATE) == good] for good in (False, True))
        named = (("Wrong", wrong), ("Right", fine))
        return [{"title": title, "count": len(group), "records": group[:SAMPLES]} for title, group in named]
    groups = {
        "Tuned wrong, base right": [r for r in records if not right(r, CANDIDATE) and right(r, BASE, FEW_SHOT)],
        "Both wrong": [r for r in records if not right(r, CANDIDATE, BASE, FEW_SHOT)],
        "Tuned right, base wrong": [r for r in records if right(r, CANDIDATE) and not right(r, BASE, FEW_SHOT)],
        "Both right": [r for r in records if right(r, CANDIDATE) and right(r, BASE, FEW_SHOT)],
    }
    return [{"title": title, "count": len(group), "records": group[:SAMPLES]} for title, group in groups.items()]
