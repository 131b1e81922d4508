"""The dials of pipeline.yaml's `gate:` beside its rules (gate_rules.py); score.py gets those with an `argument`.

Runs in the processing container of Evaluate, and on the author's machine.
"""

from __future__ import annotations

from common.dials import Dial

GATE = (
    Dial(
        "gate.confidence", 0.95, "how sure a rule has to be met; a rule may ask for its own", unit="0.5-0.999", low=0.5,
        high=0.999, parameter="GateConfidence",
    ),
    Dial(
        "gate.slice_margin", 0.1, "loss of a slice that ends the run where it is beyond doubt; 1 = slices don't decide",
        unit="0-1", low=0, high=1, parameter="GateSliceMargin", argument="slice-margin",
    ),
    Dial(
        "gate.slice_rows", 30, "slices of fewer rows don't decide", unit="rows", low=2, high=1_000_000,
        argument="slice-rows",
    ),
)  # fmt: skip
