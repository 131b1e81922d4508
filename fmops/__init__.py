"""Fine-tune a language model as one SageMaker pipeline, from a notebook or a script; the command makes these calls too.

    import fmops

    pipeline = fmops.Pipeline("pipeline.yaml", env="local")   # on this machine; env="prod": in that account
    pipeline.upsert()
    run = pipeline.start(data="my.csv")
    run.watch()                                                # a table that refreshes; raises if the run fails
    run.report()                                               # metrics, and the HTML report in a sandboxed frame
    run.version.approve("better on all slices")                # its approval deploys it
    pipeline.endpoint.invoke("turn on the lights in the kitchen")

`fmops.UserError` says what went wrong and what to do; `fmops.UsageProblem`, a kind of it, that nothing was started.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from configuration.errors import UsageProblem as UsageProblem
    from configuration.errors import UserError as UserError
    from fmops.endpoint import Endpoint as Endpoint
    from fmops.pipeline import Pipeline as Pipeline
    from fmops.report import Report as Report
    from fmops.run import Run as Run
    from fmops.version import Version as Version

__all__ = ["Endpoint", "Pipeline", "Report", "Run", "UsageProblem", "UserError", "Version"]

_HOMES = {
    "Endpoint": "fmops.endpoint",
    "Pipeline": "fmops.pipeline",
    "Report": "fmops.report",
    "Run": "fmops.run",
    "UsageProblem": "configuration.errors",
    "UserError": "configuration.errors",
    "Version": "fmops.version",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return metadata.version("fmops")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'fmops' has no attribute {name!r}")
