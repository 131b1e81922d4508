"""What a fine-tuning job of Amazon Bedrock takes, by the family of its base model: form, limits, hyperparameters.

Runs in AWS Lambda, in the processing container of Prepare, and on the author's machine: only the standard library is
needed. Sources: Bedrock user guide, "Prepare data for fine-tuning your models" (rows, tokens, bytes) and "Custom model
hyperparameters"; Nova user guide, "Preparing data for fine-tuning Understanding models"; AWS's validators in
aws-samples/amazon-bedrock-samples. What none of them says is marked unknown, with the stricter choice
(docs/fidelity.md, section "Data for Bedrock").

    family_of("amazon.nova-micro-v1:0:128k").form                      # "bedrock-conversation-2024"
    hyperparameter_problems(FAMILIES["nova"], {"epochCount": "9"})     # ["epochCount: '9' is refused by ..."]
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

Form = Literal["bedrock-conversation-2024", "messages", "prompt-completion"]
SHAPES: dict[Form, str] = {
    "bedrock-conversation-2024": (
        '{"schemaVersion": "bedrock-conversation-2024", "system": [{"text"}], '
        '"messages": [{"role", "content": [{"text"}]}, ...]}'
    ),
    "messages": '{"system": "...", "messages": [{"role", "content": "..."}, ...]}',
    "prompt-completion": '{"prompt": "...", "completion": "..."}',
}
TEXTS = '{"input": "..."}'
"""What continued pre-training takes, whatever the family."""
MB, GB = 1024**2, 1024**3  # as AWS's validator for Claude reads "10 GB"
DOCUMENTED = 6.0
"""Characters per token, by which the pages tell prompts and completions."""
SAFE = 3.0
"""Characters of ASCII per token in conversations, by AWS's validator for Claude; others count as a token each."""
_WORDS_OF_NOVA = (
    "System:", "SYSTEM:", "User:", "USER:", "Bot:", "BOT:", "Assistant:", "ASSISTANT:", "Thought:", "[EOS]", "<image>",
    "<video>",
)  # fmt: skip


class Hyperparameter(NamedTuple):
    """One that a family takes, by Bedrock's name."""

    name: str
    type: Literal["integer", "float"]
    lowest: float
    highest: float
    default: float | None


@dataclass(frozen=True)
class Limits:
    """What a job refuses; (lowest, highest) where there are two. None: no page gives any."""

    train_rows: tuple[int, int]
    validation_rows: tuple[int, int]
    total_rows: tuple[int, int]
    """Of both files; the lowest also holds for a training file alone, which may go without the other."""
    row_tokens: int
    """Of prompt and answers together."""
    train_bytes: int
    validation_bytes: int
    answer_tokens: int | None = None
    """Of the completion alone."""
    characters_per_token: float = SAFE
    reserved: tuple[str, ...] = ()
    """Texts that no row may hold."""
    images: int = 0
    """The most in a row; 0: none."""
    videos: int = 0


@dataclass(frozen=True)
class Family:
    """Base models whose jobs take the same."""

    name: str
    label: str
    form: Form
    prefixes: tuple[str, ...]
    """How the ids of its models begin."""
    limits: Limits
    hyperparameters: tuple[Hyperparameter, ...]
    retired: bool = False
    retired_because: str = ""
    pretraining: bool = False
    """Whether any of its models takes texts (CONTINUED_PRE_TRAINING)."""
    variants: tuple[Family, ...] = field(default=(), repr=False)
    """Models of the same name that take something else; looked at before it."""

    @property
    def shape(self) -> str:
        return SHAPES[self.form]


def _epochs(highest: int, default: int) -> Hyperparameter:
    return Hyperparameter("epochCount", "integer", 1, highest, default)


def _batch(lowest: int, highest: int, default: int) -> Hyperparameter:
    return Hyperparameter("batchSize", "integer", lowest, highest, default)


def _rate(lowest: float, highest: float, default: float) -> Hyperparameter:
    return Hyperparameter("learningRate", "float", lowest, highest, default)


def _warmup(highest: int, default: int) -> Hyperparameter:
    return Hyperparameter("learningRateWarmupSteps", "integer", 0, highest, default)


def _stopping(threshold: float, patience: int) -> tuple[Hyperparameter, Hyperparameter]:
    return (
        Hyperparameter("earlyStoppingThreshold", "float", 0, 0.1, threshold),
        Hyperparameter("earlyStoppingPatience", "integer", 1, 10, patience),
    )


_NOVA = Family(
    "nova",
    "Amazon Nova",
    "bedrock-conversation-2024",
    ("amazon.nova-lite", "amazon.nova-pro", "amazon.nova-2-lite"),
    # Bytes: unknown. Rows of a validation file, and of both: what AWS's validator holds each file to.
    Limits((8, 20_000), (8, 20_000), (8, 20_000), 32_000, 10 * GB, GB, reserved=_WORDS_OF_NOVA, images=10, videos=1),
    (_epochs(5, 2), _rate(1e-6, 1e-4, 1e-5), _warmup(100, 10)),
)
_NOVA_MICRO = replace(
    _NOVA,
    label="Amazon Nova Micro",
    prefixes=("amazon.nova-micro",),
    limits=replace(_NOVA.limits, images=0, videos=0),
)
_CLAUDE = Family(
    "claude",
    "Anthropic Claude 3 Haiku",
    "messages",
    ("anthropic.claude-3-haiku",),
    Limits(
        (32, 10_000),
        (32, 1_000),
        (32, 10_000),
        32_000,
        10 * GB,
        GB,
        reserved=("\nHuman:", "\nAssistant:"),
    ),
    (
        _epochs(10, 2),
        _batch(4, 256, 32),
        Hyperparameter("learningRateMultiplier", "float", 0.1, 2, 1),
        *_stopping(0.001, 2),
    ),
    retired=True,
    retired_because="Claude 3 Haiku reached its end of life on Bedrock on 2026-09-10: no new job can be created on it.",
)
_OF_LLAMA = Limits((1, 10_000), (1, 1_000), (100, 10_000), 16_000, 10 * GB, GB)  # bytes: unknown
_LLAMA_3_1 = Family(
    "llama",
    "Meta Llama 3.1",
    "prompt-completion",
    ("meta.llama3-1-8b", "meta.llama3-1-70b"),
    replace(_OF_LLAMA, characters_per_token=DOCUMENTED),
    (_epochs(10, 5), _batch(1, 1, 1), _rate(5e-6, 0.1, 1e-4)),
)
_LLAMA_3_2 = replace(
    _LLAMA_3_1,
    label="Meta Llama 3.2 and 3.3",
    form="bedrock-conversation-2024",
    prefixes=("meta.llama3-2-1b", "meta.llama3-2-3b", "meta.llama3-3-70b"),
    limits=_OF_LLAMA,
)
_LLAMA_11B = replace(
    _LLAMA_3_2,
    label="Meta Llama 3.2 11B",
    prefixes=("meta.llama3-2-11b",),
    limits=replace(_OF_LLAMA, images=1),
)
_LLAMA_90B = replace(
    _LLAMA_3_2,
    label="Meta Llama 3.2 90B",
    prefixes=("meta.llama3-2-90b",),
    limits=replace(_OF_LLAMA, row_tokens=10_000, images=1),
)
_TITAN_PREMIER = Family(
    "titan",
    "Amazon Titan Text Premier",
    "prompt-completion",
    ("amazon.titan-text-premier",),
    # Rows: unknown; the lowest is the one of Cohere, which takes the same form.
    Limits((32, 10_000), (1, 1_000), (32, 10_000), 4_096, GB, 100 * MB, characters_per_token=DOCUMENTED),
    (_epochs(5, 2), _batch(1, 1, 1), _rate(1e-7, 1e-5, 1e-6), _warmup(20, 5)),
    retired=True,
    retired_because="Titan Text is no longer among the models that Bedrock fine-tunes: no job can be created.",
)
_TITAN = replace(
    _TITAN_PREMIER,
    label="Amazon Titan Text Lite and Express",
    prefixes=("amazon.titan-text-lite", "amazon.titan-text-express"),
    hyperparameters=(_epochs(10, 5), _batch(1, 64, 1), _rate(0, 1, 1e-5), _warmup(250, 5)),
    pretraining=True,
    variants=(_TITAN_PREMIER,),
)
_COHERE_LIGHT = Family(
    "cohere",
    "Cohere Command Light",
    "prompt-completion",
    ("cohere.command-light",),
    # Bytes: unknown; Titan's, which takes the same form.
    Limits(
        (32, 10_000),
        (1, 1_000),
        (32, 10_000),
        4_096,
        GB,
        100 * MB,
        answer_tokens=2_048,
        characters_per_token=DOCUMENTED,
    ),
    (
        _epochs(100, 1),
        _batch(8, 32, 8),
        _rate(5e-6, 0.1, 1e-5),
        *_stopping(0.01, 6),
        Hyperparameter("evalPercentage", "float", 5, 50, 20),
    ),
    retired=True,
    retired_because="Cohere Command is no longer among the models that Bedrock fine-tunes: no job can be created.",
)
_COHERE = replace(
    _COHERE_LIGHT,
    label="Cohere Command",
    prefixes=("cohere.command-text",),
    hyperparameters=tuple(
        _batch(8, 8, 8) if each.name == "batchSize" else each for each in _COHERE_LIGHT.hyperparameters
    ),
    variants=(_COHERE_LIGHT,),
)
FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        replace(_NOVA, variants=(_NOVA_MICRO,)),
        _CLAUDE,
        replace(_LLAMA_3_1, variants=(_LLAMA_3_2, _LLAMA_11B, _LLAMA_90B)),
        _TITAN,
        _COHERE,
    )
}
"""By name; `variants` are found by a model's id alone."""


def family_of(model_id: str) -> Family | None:
    """The family of a model id, with or without context (":128k") or region ("us."), or of an ARN; None: unknown."""
    plain = re.sub(r"^arn:[^/]+/", "", model_id.strip())
    for family in FAMILIES.values():
        for each in (*family.variants, family):
            if any(re.match(rf"(?:[a-z-]+\.)?{re.escape(prefix)}(?![a-z0-9])", plain) for prefix in each.prefixes):
                return each
    return None


def find_family(text: str) -> Family | None:
    """By the family's name ("llama") or by a model's id, which tells Llama 3.2 from 3.1; None: neither."""
    return FAMILIES.get(text.strip().lower()) or family_of(text)


def hyperparameter_problems(family: Family, given: Mapping[str, str]) -> list[str]:
    """What a job of that family would refuse among hyperparameters by Bedrock's names; an empty list is good."""
    known = {each.name: each for each in family.hyperparameters}
    problems = []
    for name, value in given.items():
        if name not in known:
            problems.append(f"{name}: {family.label} has no such hyperparameter; allowed: {', '.join(known)}")
        elif not _fits(known[name], value):
            problems.append(f"{name}: {value!r} is refused by {family.label}; allowed: {_allowed(known[name])}")
    return problems


def _fits(known: Hyperparameter, value: str) -> bool:
    if known.type == "integer" and not re.fullmatch(r"[0-9]{1,9}", value):
        return False
    try:
        number = float(value)
    except ValueError:
        return False
    return math.isfinite(number) and known.lowest <= number <= known.highest


def _allowed(known: Hyperparameter) -> str:
    noun = "a whole number" if known.type == "integer" else "a number"
    default = "" if known.default is None else f" (Bedrock's default: {known.default:g})"
    if known.lowest == known.highest:
        return f"{known.lowest:g} alone{default}"
    return f"{noun} from {known.lowest:g} to {known.highest:g}{default}"
