"""Asks the models of one evaluation over their APIs: the rows, with examples, the probes; custom models are hosted
meanwhile. Runs in the processing container of an evaluation (CPU), and on a laptop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import fixed_sets
from bedrock_hosting import Hosting, is_custom
from data import Case
from few_shot import FewShot
from intervals import FEW_SHOT
from passes import Pass
from remote import Remote, client_of, region_of, remote_of
from remote_pass import Asking, Question, questions_of, remote_pass


@dataclass(frozen=True)
class Prices:
    """USD for a million tokens; None: not known."""

    input: float | None
    output: float | None

    def of(self, served: dict[str, Any]) -> float | None:
        """What a model's tokens cost, in USD."""
        if self.input is None or self.output is None:
            return None
        return round(float(served["input_tokens"] * self.input + served["output_tokens"] * self.output) / 1e6, 6)


@dataclass(frozen=True)
class Host:
    """How custom models are hosted."""

    kind: str
    prefix: str
    """How the names begin of what hosts them."""
    execution: str
    expires: int
    poll_seconds: float

    def hosting(self, model: str) -> Hosting:
        """Where the model lies."""
        client = client_of("bedrock", region=region_of(model), attempts=8)
        return Hosting(client, self.kind, self.execution, self.expires, self.poll_seconds, prefix=self.prefix)


@dataclass
class Models:
    """What came of the models, by their names in evaluation.json: `passes`, `served`, and `fixed` of the probes."""

    asking: Asking
    limit: int
    sets: fixed_sets.FixedSets
    prices: Prices
    host: Host | None
    passes: dict[str, Pass] = field(default_factory=dict)
    served: dict[str, dict[str, Any]] = field(default_factory=dict)
    fixed: dict[str, dict[str, Any]] = field(default_factory=dict)

    def ask(
        self,
        name: str,
        where: str,
        rows: Sequence[Case],
        shots: FewShot | None = None,
        identity: str | None = None,
        keep: bool = False,
    ) -> None:
        """Asks one model all rows, with `shots` also with examples in its prompt. Raises JobError.

        `identity`: what tells it apart in the journal, if not `where`; `keep`: what hosts it stays when all went well.
        """
        asked = [(name, rows)]
        if shots:  # an API does not say how many examples would fit
            asked.append((FEW_SHOT, [{**row, "messages": [*shots.prompt(row), row["messages"][-1]]} for row in rows]))
        known, model = identity or where, where.partition(":")[2]
        if not is_custom(model) or self.host is None:
            self._ask(name, where, known, asked)
            return
        hosting = self.host.hosting(model)
        if keep or self._missing(known, asked):
            with hosting.hosted(model, keep) as arn:
                self._ask(name, f"bedrock:{arn}", known, asked)
        else:  # an earlier attempt was killed after its last answer
            hosting.remove(model)
            self._ask(name, where, known, asked)

    def _missing(self, identity: str, asked: Sequence[tuple[str, Sequence[Case]]]) -> bool:
        every = [questions_of(rows) for _, rows in asked] + [self._probes()]
        return any(self.asking.missing(identity, questions, self.limit) for questions in every)

    def _probes(self) -> list[Question]:
        return [Question([{"role": "user", "content": one.messages[0]["content"]}]) for one in self.sets.probes]

    def _ask(self, name: str, where: str, identity: str, asked: Sequence[tuple[str, Sequence[Case]]]) -> None:
        remote = remote_of(where, self.asking.at_once)
        for called, rows in asked:
            self._pass(called, remote, identity, rows)
        if self.sets.probes:
            found = self.asking.ask(f"{name}, probes", remote, identity, self._probes(), self.limit)
            answers = [kept.answer.text for kept in found]
            self.fixed[name] = {"sha256": self.sets.sha256, "limit": self.limit, "losses": [], "answers": answers}

    def _pass(self, name: str, remote: Remote, identity: str, rows: Sequence[Case]) -> None:
        self.passes[name], served = remote_pass(self.asking, name, remote, identity, rows, self.limit)
        self.served[name] = {**served, "usd": self.prices.of(served)}
        print(
            f"[score] model={name} latency_p50={served['latency_p50']:.3f} latency_p99={served['latency_p99']:.3f} "
            f"input_tokens={served['input_tokens']} output_tokens={served['output_tokens']} "
            f"requests={served['attempts']}",
            flush=True,
        )
