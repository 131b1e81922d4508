"""Names the models of report.html, and says what was compared, how, and what answering took. Runs in the processing
containers of evaluations, and on a laptop.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import charts
from intervals import BASE, CANDIDATE, CHAMPION, FEW_SHOT

MODELS = {CANDIDATE: "tuned", CHAMPION: "champion", FEW_SHOT: "base with examples", BASE: "base"}
ALONE = {CANDIDATE: "the model"}
"""Where nothing was asked beside it."""


def models(evaluation: Mapping[str, Any]) -> dict[str, str]:
    """The models that were asked, by their names in the page; texts are shown without examples."""
    asked = {model for found in evaluation["metrics"].values() for model in found}
    if not asked & {BASE, FEW_SHOT, CHAMPION}:
        return ALONE
    return {
        key: name for key, name in MODELS.items() if key in asked and (evaluation["kind"] != "text" or key != FEW_SHOT)
    }


def facts(evaluation: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Tables of what was compared and how."""
    settings, training = evaluation["settings"], evaluation.get("training") or {}
    seconds = settings.get("seconds", {})
    names = {**MODELS, **(ALONE if len(evaluation["models"]) == 1 else {})}
    tables = [
        (
            "Models",
            [(names[key].capitalize(), name) for key, name in evaluation["models"].items()],
        ),
        (
            "Scoring",
            [
                ("Test rows scored", f"{evaluation['rows']} of {settings.get('test_rows', '?')}"),
                *(
                    (title, str(settings[name]))
                    for title, name in (
                        ("Examples shown to the base model", "few_shot"),
                        ("Rows for which fewer fitted", "few_shot_fewer"),
                        ("Rows that were cut to the model's positions", "rows_cut"),
                        ("Most tokens of an answer", "max_new_tokens"),
                        ("Tokens of a text read at once", "window_tokens"),
                    )
                    if name in settings
                ),
                ("Rows at once", str(settings.get("at_once", settings.get("batch_size")))),
                ("Seed", str(settings.get("seed"))),
                *_machine(settings),
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


def _machine(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a model that was loaded ran on; nothing of one behind an API."""
    if "at_once" in settings:
        return []
    return [
        ("Ran on", f"{settings.get('device')}, {settings.get('precision')}"),
        ("Libraries", f"torch {settings.get('torch')}, transformers {settings.get('transformers')}"),
    ]


def served(evaluation: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Of each model behind an API: seconds that 50, 90 and 99% of its answers stayed within, tokens, requests, cost."""
    names = models(evaluation)
    return [
        (
            names[model],
            [
                *(f"{found[f'latency_p{share}']:.2f} s" for share in (50, 90, 99)),
                *(f"{found[name]:,}" for name in ("input_tokens", "output_tokens", "attempts")),
                "" if found.get("usd") is None else f"${found['usd']:.2f}",
            ],
        )
        for model, found in (evaluation.get("served") or {}).items()
    ]


def _fact(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return charts.number(round(value, 4)) if isinstance(value, float) else str(value)
