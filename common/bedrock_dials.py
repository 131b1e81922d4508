"""The dials of pipeline.yaml's `bedrock:`: the pipeline's other branch, where Amazon Bedrock trains and serves.

Runs in AWS Lambda (customize.py), and on the author's machine. Which hyperparameters a family of models takes, and in
which range, stands in common/bedrock_families.py: a value that is left to the family is not sent.
"""

from __future__ import annotations

from common.dials import INSTANCE_TYPE, INSTANCE_WORDS, Dial

_MODEL = (
    r"(arn:aws(-[^:]+)?:bedrock:[a-z0-9-]{1,20}:([0-9]{12}:custom-model|:foundation-model)/[a-z0-9./:-]{3,200})"
    r"|[a-z0-9-]{1,63}\.[a-z0-9-]{1,63}([.:][a-z0-9-]{1,63}){0,3}"
)

SERVICE = Dial(
    "training.service", "sagemaker", "which branch of the pipeline trains: a training job, or Bedrock (bedrock: below)",
    choices=("sagemaker", "bedrock"), parameter="TrainingMethod",
)  # fmt: skip

HYPERPARAMETERS = (
    Dial(
        "bedrock.epochs", 0, "passes over the training rows; 0 = the family's default", low=0, high=100,
        parameter="BedrockEpochs",
    ),
    Dial(
        "bedrock.batch_size", 0, "0 = the family's default (Nova has none to set)", unit="rows", low=0, high=256,
        parameter="BedrockBatchSize",
    ),
    Dial(
        "bedrock.learning_rate", 0.0, "0 = the family's default", low=0, high=1, parameter="BedrockLearningRate",
    ),
    Dial(
        "bedrock.learning_rate_multiplier", 0.0, "Claude's: times a rate that Bedrock chooses; 0 = the default",
        low=0, high=2, parameter="BedrockLearningRateMultiplier",
    ),
    Dial(
        "bedrock.warmup_steps", -1, "in which the rate rises; -1 = the family's default", unit="steps", low=-1,
        high=250, parameter="BedrockWarmupSteps",
    ),
    Dial(
        "bedrock.early_stopping_threshold", -1.0, "a smaller gain of the validation loss is none; -1 = the default",
        low=-1, high=0.1, parameter="BedrockEarlyStoppingThreshold",
    ),
    Dial(
        "bedrock.early_stopping_patience", 0, "without a gain before the job stops; 0 = the family's default",
        unit="epochs", low=0, high=10, parameter="BedrockEarlyStoppingPatience",
    ),
)  # fmt: skip

BEDROCK = (
    Dial(
        "bedrock.base", "amazon.nova-micro-v1:0:128k", "as CreateModelCustomizationJob takes it: with its context",
        pattern=_MODEL, longest=256, words="a model id such as amazon.nova-micro-v1:0:128k, or an ARN",
        parameter="BedrockBaseModel",
    ),
    Dial(
        "bedrock.compared_with", None, "the base as Converse takes it (us.meta...: a profile); null = without context",
        kind=str, optional=True, pattern=_MODEL, longest=256, words="a model or inference profile id, or an ARN",
        parameter="BedrockComparedWith",
    ),
    Dial(
        "bedrock.customization_type", "FINE_TUNING", "answers to prompts, or texts as they stand",
        choices=("FINE_TUNING", "CONTINUED_PRE_TRAINING"), parameter="BedrockCustomizationType",
    ),
    *HYPERPARAMETERS,
    Dial(
        "bedrock.serving", "on-demand", "pay for each token, or for model units by the hour",
        choices=("on-demand", "provisioned"), parameter="BedrockServing",
    ),
    Dial(
        "bedrock.model_units", 1, "serving provisioned: each bills by the hour until it is deleted", low=1, high=100,
        parameter="BedrockModelUnits",
    ),
    Dial(
        "bedrock.commitment", "none", "OneMonth and SixMonths can't be ended before",
        choices=("none", "OneMonth", "SixMonths"), parameter="BedrockCommitment",
    ),
    Dial(
        "bedrock.instance_type", "ml.m5.xlarge", "asks Bedrock and scores: needs no GPU", pattern=INSTANCE_TYPE,
        words=INSTANCE_WORDS, shape="ProcessingInstanceType",
    ),
)  # fmt: skip

NAMES = {
    "epochs": "epochCount",
    "batch_size": "batchSize",
    "learning_rate": "learningRate",
    "learning_rate_multiplier": "learningRateMultiplier",
    "warmup_steps": "learningRateWarmupSteps",
    "early_stopping_threshold": "earlyStoppingThreshold",
    "early_stopping_patience": "earlyStoppingPatience",
}
"""Ours -> Bedrock's."""


def hyperparameters(given: dict[str, str]) -> dict[str, str]:
    """What was asked for, by Bedrock's names; what is left to the family is left out. Raises DialError."""
    found = {}
    for dial in HYPERPARAMETERS:
        value = dial.read(given.get(dial.name, dial.default))
        if value != dial.default:
            found[NAMES[dial.name]] = f"{value:.10f}".rstrip("0").rstrip(".") if dial.type is float else str(value)
    return found


def on_demand_id(base: str) -> str:
    """A base model as Converse takes it: the id without the context that customization jobs name (":128k")."""
    head, _, tail = base.rpartition(":")
    return head if head and tail.endswith("k") and tail[:-1].isdigit() else base
