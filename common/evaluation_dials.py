"""The dials of pipeline.yaml's `evaluation:`; those with an `argument` are score.py's options.

Runs in the GPU processing container of Evaluate, and on the author's machine.
"""

from __future__ import annotations

from common.data_dials import MAX_PROCESSING_SECONDS
from common.dials import INSTANCE_TYPE, INSTANCE_WORDS, S3_URI, Dial

OF_THE_BASE = "few-shot"
"""The option of EvaluateBase and EvaluateChampion alone: nobody shows the tuned model examples."""

EVALUATION = (
    Dial(
        "evaluation.rows", 500, "scored at most; intervals narrow with the square root; 0 = all", unit="test rows",
        low=0, high=1_000_000, parameter="EvaluationRows", argument="max-rows",
    ),
    Dial(
        "evaluation.few_shot", 5, "shown to the base model, so that it gets a fair chance", unit="examples",
        low=1, high=64, parameter="FewShot", argument="few-shot",
    ),
    Dial(
        "evaluation.max_new_tokens", 128, "per answer at most; time grows with it; 0 = as the longest target needs",
        unit="tokens", low=0, high=32_768, parameter="MaxNewTokens", argument="max-new-tokens",
    ),
    Dial(
        "evaluation.batch_size", 32, "generated at once; memory grows with it", unit="rows", low=1, high=4096,
        parameter="EvaluationBatchSize", argument="batch-size",
    ),
    Dial(
        "evaluation.labels", 50, "at most so many different short targets are labels, measured one by one; 0 = never",
        unit="labels", low=0, high=1000, argument="labels",
    ),
    Dial(
        "evaluation.custom_metrics", None, "a Python file with metrics of your own (docs/guide.md); null = none",
        kind=str, optional=True, pattern=r".+\.py", words="a Python file's path, from pipeline.yaml's folder",
        longest=500,
    ),
    Dial(
        "evaluation.general_uri", None,
        "S3 prefix of rows that a model should not forget (in the data bucket, or a foreign one); null = none",
        kind=str, optional=True, pattern=S3_URI, words="s3://bucket/prefix", longest=256,
    ),
    Dial(
        "evaluation.probes_uri", None,
        "S3 prefix of prompts with what no answer may say (docs/gate.md; places as general_uri); null = none",
        kind=str, optional=True, pattern=S3_URI, words="s3://bucket/prefix", longest=256,
    ),
    Dial(
        "evaluation.instance_type", "ml.g5.2xlarge", "needs to hold one model at a time", pattern=INSTANCE_TYPE,
        words=INSTANCE_WORDS, parameter="EvaluationInstanceType", shape="ProcessingInstanceType",
    ),
    Dial("evaluation.volume_gb", 100, "for both models and the base model's files", unit="GB", low=1, high=16_384),
    Dial(
        "evaluation.max_runtime_seconds", 21_600, "a longer evaluation is stopped", unit="seconds",
        low=60, high=MAX_PROCESSING_SECONDS,
    ),
)  # fmt: skip
JUDGE = (
    Dial(
        "evaluation.judge.model", None, "compares the tuned model's answers with the base's; null = none", kind=str,
        optional=True, pattern=r"(?:bedrock|endpoint):[\w.:/+-]+", longest=240, argument="judge",
        words="bedrock:<model or inference profile> or endpoint:<name>",
    ),
    Dial(
        "evaluation.judge.criteria", "Prefer the answer that does what was asked, and is right.", "what makes an "
        "answer the better one", pattern=r"[^\x00-\x1f]+", words="a sentence or two", longest=250,
        argument="judge-criteria",
    ),
    Dial(
        "evaluation.judge.rows", 100, "judged at most, each asked twice; costs grow with them; 0 = all scored",
        unit="test rows", low=0, high=1_000_000, argument="judge-rows",
    ),
    Dial(
        "evaluation.judge.max_tokens", 400, "of one reply; too few leave it without a verdict", unit="tokens", low=16,
        high=8192, argument="judge-max-tokens",
    ),
    Dial(
        "evaluation.judge.at_once", 4, "asked at the same time; more are throttled sooner", unit="rows", low=1, high=64,
        argument="judge-at-once",
    ),
    Dial(
        "evaluation.judge.labels", None, "pairs that people judged (docs/guide.md): does it agree? null = none",
        kind=str, optional=True, pattern=r".+\.jsonl", words="a .jsonl file's path, from pipeline.yaml's folder",
        longest=500,
    ),
)  # fmt: skip
"""Passed to score.py where there is a judge."""
ATTEMPTS = Dial(
    "evaluation.remote.attempts", 12, "a throttled or failed request is sent so often, with growing pauses; then the "
    "run fails", unit="attempts", low=1, high=100, argument="attempts",
)  # fmt: skip
REMOTE = (
    Dial(
        "evaluation.remote.at_once", 8, "asked at the same time; more are throttled sooner", unit="rows", low=1,
        high=256, argument="at-once",
    ),
    ATTEMPTS,
    Dial(
        "evaluation.remote.price_input", None, "of the tokens that models read, for the report; null = not known",
        kind=float, optional=True, unit="USD per million", low=0, high=10_000, argument="price-input",
    ),
    Dial(
        "evaluation.remote.price_output", None, "of the tokens that models write", kind=float, optional=True,
        unit="USD per million", low=0, high=10_000, argument="price-output",
    ),
)  # fmt: skip
"""Passed to score_remote.py: models behind an API, in Bedrock or an endpoint."""
