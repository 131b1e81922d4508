"""The dials of pipeline.yaml's `training:`; those with an `argument` are train.py's hyperparameters.

Runs in the containers of Prepare and Train, and on the author's machine.
"""

from __future__ import annotations

from common.dials import INSTANCE_TYPE, INSTANCE_WORDS, MOST_FALLBACKS, S3_URI, Dial
from common.task_dial import TASK

MLFLOW_ARN = r"arn:aws[a-z-]*:sagemaker:[a-z0-9-]+:\d{12}:mlflow-(?:app|tracking-server)/[\w.-]+"
MAX_SECONDS = 28 * 24 * 3600  # the longest that a SageMaker training job may run

# Another value of these changes neither what is learned nor in which order (how it is computed changes rounding alone):
# a run may go on with it.
WITHOUT_EFFECT = frozenset(
    {
        "early_stopping_patience", "evaluations_per_run", "checkpoints_per_run", "merge", "micro_batch_tokens",
        "activation_checkpointing", "sharding",
    }
)  # fmt: skip

# Which models can be trained so depends on these alone: Prepare checks the base model with them.
OF_THE_MODEL = frozenset({"method", "lora_target_modules", "max_seq_length", "merge"})

MAX_SEQ_LENGTH = Dial(
    "training.max_seq_length", 1024, "per row; long_rows says what becomes of longer ones", unit="tokens",
    low=16, high=131_072, parameter="MaxSeqLength", argument="max_seq_length",
)  # fmt: skip

TRAINING = (
    Dial(
        "training.method", "lora", "adapters; the same on a 4-bit base (nf4); or every weight (about 8x the memory)",
        choices=("lora", "qlora", "full"), parameter="FineTuningMethod", argument="method",
    ),
    TASK,
    Dial(
        "training.dpo_beta", 0.1, "task dpo: how much it costs to leave the base", low=0.001, high=10,
        argument="dpo_beta",
    ),
    Dial(
        "training.start_from", None,
        "a version's model.tar.gz to go on from: its adapter, with full its weights; null = the base",
        kind=str, optional=True, pattern=S3_URI, words="s3://bucket/.../model.tar.gz", longest=512,
        argument="start_from",
    ),
    Dial(
        "training.epochs", 3.0, "part of one is allowed; more fits closer, and overfits sooner",
        unit="passes over the training rows", low=0.01, high=100, parameter="Epochs", argument="epochs",
    ),
    Dial(
        "training.max_steps", 0, "above 0 it wins over epochs", unit="optimizer steps", low=0, high=10_000_000,
        parameter="MaxSteps", argument="max_steps",
    ),
    Dial(
        "training.learning_rate", 2e-4, "peak; lora 1e-4 to 2e-3, full 1e-5 to 5e-5", low=1e-9, high=1,
        parameter="LearningRate", argument="learning_rate",
    ),
    Dial(
        "training.lr_scheduler", "linear", "how the rate falls after the warm-up",
        choices=("linear", "cosine", "constant"), argument="lr_scheduler",
    ),
    Dial(
        "training.warmup_ratio", 0.03, "share of the steps in which the rate rises from 0", unit="0-0.5",
        low=0, high=0.5, parameter="WarmupRatio", argument="warmup_ratio",
    ),
    Dial(
        "training.weight_decay", 0.0, "AdamW; 0.01 to 0.1 restrains full fine-tuning", low=0, high=1,
        argument="weight_decay",
    ),
    Dial(
        "training.batch_size", 8, "per GPU and step: what the optimizer sees; memory doesn't depend on it",
        unit="rows", low=1, high=4096,
        parameter="BatchSize", argument="batch_size",
    ),
    Dial(
        "training.gradient_accumulation_steps", 1, "per optimizer step; the same as a larger batch_size",
        unit="batches", low=1, high=4096, parameter="GradientAccumulationSteps", argument="gradient_accumulation_steps",
    ),
    Dial(
        "training.micro_batch_tokens", 0, "computed at once, the same rows a step all the same; 0 = the most that fits",
        unit="tokens", low=0, high=4_194_304, argument="micro_batch_tokens",
    ),
    Dial(
        "training.activation_checkpointing", "auto",
        "a third more time for a fraction of the memory; auto = where memory asks for it",
        choices=("auto", "always", "never"), argument="activation_checkpointing",
    ),
    MAX_SEQ_LENGTH,
    Dial(
        "training.learn", "all", "the assistant's messages that are learned; those with weight 0 never",
        choices=("all", "last"), argument="learn",
    ),
    Dial(
        "training.long_rows", "drop", "what becomes of rows over max_seq_length",
        choices=("drop", "truncate-left", "truncate-right", "error"), argument="long_rows",
    ),
    Dial(
        "training.lora_rank", 16, "capacity of the adapters; memory grows with it", low=1, high=1024,
        parameter="LoraRank", argument="lora_rank",
    ),
    Dial(
        "training.lora_alpha", 32, "scale of the adapters (alpha / rank); usually twice the rank", low=1, high=4096,
        parameter="LoraAlpha", argument="lora_alpha",
    ),
    Dial(
        "training.lora_dropout", 0.05, "helps with few rows", unit="0-0.9", low=0, high=0.9,
        parameter="LoraDropout", argument="lora_dropout",
    ),
    Dial(
        "training.lora_variant", "lora", "dora learns magnitudes apart (slower); rslora scales by alpha / sqrt(rank)",
        choices=("lora", "dora", "rslora"), argument="lora_variant",
    ),
    Dial(
        "training.lora_target_modules", "all-linear", "all-linear (of experts only the attention), or q_proj,v_proj",
        pattern=r"[\w.-]+(,[\w.-]+)*", words="all-linear, or module names separated by commas", longest=1000,
        argument="lora_target_modules",
    ),
    Dial(
        "training.early_stopping_patience", 0, "without a better validation loss before training stops; 0 = off",
        unit="evaluations", low=0, high=100, parameter="EarlyStoppingPatience", argument="early_stopping_patience",
    ),
    Dial(
        "training.evaluations_per_run", 10, "validation losses per run; each costs a pass over the validation rows",
        low=1, high=1000, parameter="EvaluationsPerRun", argument="evaluations_per_run",
    ),
    Dial(
        "training.checkpoints_per_run", 10, "with 10, an interruption costs at most a tenth of the work",
        low=1, high=1000, parameter="CheckpointsPerRun", argument="checkpoints_per_run",
    ),
    Dial(
        "training.merge", True, "true = one self-contained model; false = adapter only, base mounted at the endpoint",
        argument="merge",
    ),
    Dial(
        "training.precision", "auto", "auto = bf16 where the GPU has it; fp32 doubles the memory",
        choices=("auto", "bf16", "fp32"), argument="precision",
    ),
    Dial(
        "training.sharding", "auto", "weights cut over all GPUs; auto = where one can't hold them",
        choices=("auto", "always", "never"), argument="sharding",
    ),
    Dial(
        "training.input_mode", "File", "rows are copied to the volume first, or read from S3 as training asks for them",
        choices=("File", "FastFile"),
    ),
    Dial(
        "training.instance_type", "ml.g5.2xlarge", "1 GPU of 24 GB; ml.g5.12xlarge has 4, ml.p4d.24xlarge 8 of 40 GB",
        pattern=INSTANCE_TYPE, words=INSTANCE_WORDS, parameter="TrainInstanceType", shape="TrainingInstanceType",
    ),
    Dial(
        "training.fallback_instance_types", [], "tried in order when instance_type has no capacity; needs spot: false",
        low=0, high=MOST_FALLBACKS, pattern=INSTANCE_TYPE, words=INSTANCE_WORDS, shape="TrainingInstanceType",
    ),
    Dial(
        "training.instance_count", 1, "every GPU of every machine is used", unit="machines", low=1, high=64,
        parameter="TrainInstanceCount",
    ),
    Dial(
        "training.volume_gb", 200, "must not exceed the local disk of g5 and p4d machines", unit="GB",
        low=1, high=16_384,
    ),
    Dial("training.spot", True, "about a third of the price; interrupted runs continue from the last checkpoint"),
    Dial(
        "training.max_runtime_seconds", 86_400, "training time; bounds the cost", unit="seconds",
        low=60, high=MAX_SECONDS,
    ),
    Dial(
        "training.max_wait_seconds", 129_600, "training plus waiting for spot capacity; at least max_runtime_seconds",
        unit="seconds", low=60, high=MAX_SECONDS,
    ),
    Dial("training.network_isolation", True, "no network in any job; a hub model, MLflow and a judge need false"),
    Dial("training.tensorboard", False, "event files beside the model in S3, while training runs"),
    Dial(
        "training.mlflow_tracking_uri", None,
        "where losses and throughput also go, in an experiment of the pipeline's name",
        kind=str, optional=True, pattern=rf"{MLFLOW_ARN}|https?://[\w.:/-]+", longest=2048,
        words="the ARN of a SageMaker MLflow app or tracking server, or http(s)://...",
    ),
)  # fmt: skip
