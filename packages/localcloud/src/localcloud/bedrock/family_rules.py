"""Hyperparameters of each family of base models, and the limits of its training data.

Sources: documentation pages "Custom model hyperparameters" and "Prepare data for fine-tuning"; for Nova's data the
validator of aws-samples/amazon-bedrock-samples (custom-models/bedrock-fine-tuning/amazon-nova). What is known of one
version of Llama is taken for all.
"""

from __future__ import annotations

from dataclasses import dataclass

from localcloud.bedrock.problems import invalid


@dataclass(frozen=True)
class Hyperparameter:
    """A number that a customization job takes, with both ends of its range."""

    low: float
    high: float
    default: float
    whole: bool = True

    def check(self, name: str, text: str) -> None:
        """ValidationException for what isn't a number of the range."""
        try:
            value = int(text) if self.whole else float(text)
        except ValueError:
            kind = "a whole number" if self.whole else "a number"
            raise invalid(f"The hyperparameter {name} is {text!r}; it must be {kind}.") from None
        if not self.low <= value <= self.high:
            raise invalid(f"The hyperparameter {name} is {text}; it must be from {self.low:g} to {self.high:g}.")


@dataclass(frozen=True)
class Rules:
    """What a family's jobs take. 0 is no limit that is known."""

    hyperparameters: dict[str, Hyperparameter]
    least_rows: int = 0
    most_rows: int = 0
    least_validation: int = 0
    most_validation: int = 0
    least_together: int = 0
    most_together: int = 0
    """Of training and validation data, also where there is only the first."""
    most_tokens: int = 0
    """Of one row, estimated at six characters a token, as the documentation does."""
    most_bytes: int = 0
    most_validation_bytes: int = 0
    reserved: tuple[str, ...] = ()
    """Words that no text of a row may have."""


_EPOCHS_TO_10 = Hyperparameter(1, 10, 2)
_GIB = 1 << 30
RULES = {
    "nova": Rules(
        {
            "epochCount": Hyperparameter(1, 5, 2),
            "learningRate": Hyperparameter(1e-6, 1e-4, 1e-5, whole=False),
            "learningRateWarmupSteps": Hyperparameter(0, 100, 10),
        },
        least_rows=8,
        most_rows=20_000,
        least_validation=8,
        most_validation=20_000,
        most_tokens=32_000,
        reserved=("System:", "SYSTEM:", "User:", "USER:", "Bot:", "BOT:", "Assistant:", "ASSISTANT:", "Thought:",
                  "[EOS]", "<image>", "<video>", "<unk>"),
    ),
    "claude": Rules(
        {
            "epochCount": _EPOCHS_TO_10,
            "batchSize": Hyperparameter(4, 256, 32),
            "learningRateMultiplier": Hyperparameter(0.1, 2, 1, whole=False),
            "earlyStoppingThreshold": Hyperparameter(0, 0.1, 0.001, whole=False),
            "earlyStoppingPatience": Hyperparameter(1, 10, 2),
        },
        least_rows=32,
        most_rows=10_000,
        least_validation=32,
        most_validation=1_000,
        most_together=10_000,
        most_tokens=32_000,
        most_bytes=10 * _GIB,
        most_validation_bytes=_GIB,
        reserved=("\nHuman:", "\nAssistant:"),
    ),
    "llama": Rules(
        {
            "epochCount": Hyperparameter(1, 10, 5),
            "batchSize": Hyperparameter(1, 1, 1),
            "learningRate": Hyperparameter(5e-6, 0.1, 1e-4, whole=False),
        },
        most_rows=10_000,
        most_validation=1_000,
        least_together=100,
        most_together=10_000,
        most_tokens=16_000,
    ),
}  # fmt: skip
_TOKENS_OF_90B = 10_000


def check_hyperparameters(family: str, given: dict[str, str]) -> None:
    """ValidationException for a name that the family doesn't have, and a value outside its range."""
    known = RULES[family].hyperparameters
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise invalid(
            f"The hyperparameters {', '.join(unknown)} are not supported by this base model. Supported: "
            f"{', '.join(sorted(known))}."
        )
    for name, text in given.items():
        known[name].check(name, text)


def with_defaults(family: str, given: dict[str, str]) -> dict[str, str]:
    """All of a family's hyperparameters as text, what was not given with its default."""
    return {name: f"{one.default:g}" for name, one in RULES[family].hyperparameters.items()} | given


def most_tokens(family: str, base: str) -> int:
    """Tokens that one row may have with this base model; 0 where nobody says."""
    return _TOKENS_OF_90B if "-90b-" in base else RULES[family].most_tokens
