"""Counts answers that are labels: a few short texts, such as intents. Runs in the Evaluate step's processing container.

    found = labelled(("negative", "positive"), targets, {"candidate": answers, ...})

common/targets.py says when targets are labels. An answer counts as a label only if it is that and nothing else:
accuracy is exact match. Precision, recall and F1 are scikit-learn's. Macro F1 is over the labels that the test rows'
targets have; it is a mean of ratios (2 x right / (targets + answers)), and linearised as such, so that intervals.py
makes its interval from groups.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from intervals import Mean

from common.targets import normalised

NO_LABEL = -1


@dataclass(frozen=True)
class Labelled:
    """Test rows whose targets are labels: the place of each row's in `labels`, by model that of its answer."""

    labels: tuple[str, ...]
    targets: list[int]
    answers: Mapping[str, list[int]]
    """NO_LABEL where an answer is none of them."""

    def macro_f1(self, model: str, rows: Sequence[int], groups: Any) -> Mean:
        """Macro F1 of some rows, of which `groups` (an array of numbers from 0) says which belong together."""
        import numpy as np

        wanted = np.asarray([self.targets[row] for row in rows])
        said = np.asarray([self.answers[model][row] for row in rows])
        present, target = np.unique(wanted, return_inverse=True)
        # Labels that no target has have no F1; an answer that names one is wrong as any other.
        answer = np.where(np.isin(said, present), np.searchsorted(present, said), NO_LABEL)
        named, right = answer != NO_LABEL, answer == target
        count = len(present)
        size = np.bincount(target, minlength=count) + np.bincount(answer[named], minlength=count)
        f1 = 2 * np.bincount(target[right], minlength=count) / size
        errors = (2 * right - f1[target]) / size[target]
        errors[named] -= f1[answer[named]] / size[answer[named]]
        together = np.bincount(groups, errors / count)
        together[np.abs(together) < 1e-12] = 0.0  # rounding
        return Mean(float(f1.mean()), together, binary=True, rows=self.even_rows(rows))

    def even_rows(self, rows: Sequence[int]) -> float:
        """Returns of how many rows a plain share is as uncertain: a label of few rows counts as much as any other."""
        counts = Counter(self.targets[row] for row in rows).values()
        return len(counts) ** 2 / sum(1 / count for count in counts)

    def summary(self) -> dict[str, Any]:
        """Returns evaluation.json's `labels`: figures of each label, answers that are none, what was taken for what.

        `confusion` has every pair that occurs, most frequent first; its rows add up to all. What has no value (the
        precision of a label that was never answered) is null.
        """
        wanted = Counter(self.targets)
        seen = sorted(set(wanted) | {place for said in self.answers.values() for place in said} - {NO_LABEL})
        by_model = {model: self._figures(said, seen) for model, said in self.answers.items()}
        return {
            "labels": [
                {
                    "label": self.labels[label],
                    "rows": wanted[label],
                    **{model: figures[place] for model, figures in by_model.items()},
                }
                for place, label in enumerate(seen)
            ],
            "no_label": {model: said.count(NO_LABEL) for model, said in self.answers.items()},
            "confusion": {model: self._confusion(said) for model, said in self.answers.items()},
        }

    def _figures(self, said: Sequence[int], labels: Sequence[int]) -> list[dict[str, float | int | None]]:
        from sklearn.metrics import precision_recall_fscore_support

        of_answers = Counter(said)
        table = precision_recall_fscore_support(self.targets, said, labels=labels, average=None, zero_division=0)
        return [
            {
                "answers": of_answers[label],
                "precision": round(float(precision), 6) if of_answers[label] else None,
                "recall": round(float(recall), 6) if rows else None,
                "f1": round(float(f1), 6),
            }
            for label, precision, recall, f1, rows in zip(labels, *table, strict=True)
        ]

    def _confusion(self, said: Sequence[int]) -> list[dict[str, Any]]:
        pairs = Counter(zip(self.targets, said, strict=True))
        return [
            {"target": self.labels[target], "answer": None if answer == NO_LABEL else self.labels[answer], "rows": rows}
            for (target, answer), rows in sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))
        ]


def labelled(labels: Sequence[str], targets: Sequence[str], answers: Mapping[str, Sequence[str]]) -> Labelled:
    """The rows' targets, all of them labels, and each model's answers as places in `labels`."""
    places = {label: place for place, label in enumerate(labels)}
    return Labelled(
        tuple(labels),
        [places[normalised(target)] for target in targets],
        {model: [places.get(normalised(answer), NO_LABEL) for answer in given] for model, given in answers.items()},
    )
