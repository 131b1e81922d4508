"""The `bedrock:` section of pipeline.yaml: the branch where Amazon Bedrock trains and serves."""

from __future__ import annotations

from collections.abc import Iterator

from common.bedrock_dials import HYPERPARAMETERS, hyperparameters
from common.bedrock_families import FAMILIES, family_of, hyperparameter_problems
from configuration.section import Section, value_of


class Bedrock(Section):
    """The base model that Bedrock tunes, how, and how what comes of it is served."""

    place = "bedrock"
    base: str = value_of("bedrock.base")
    compared_with: str | None = value_of("bedrock.compared_with")
    customization_type: str = value_of("bedrock.customization_type")
    epochs: int = value_of("bedrock.epochs")
    batch_size: int = value_of("bedrock.batch_size")
    learning_rate: float = value_of("bedrock.learning_rate")
    learning_rate_multiplier: float = value_of("bedrock.learning_rate_multiplier")
    warmup_steps: int = value_of("bedrock.warmup_steps")
    early_stopping_threshold: float = value_of("bedrock.early_stopping_threshold")
    early_stopping_patience: int = value_of("bedrock.early_stopping_patience")
    serving: str = value_of("bedrock.serving")
    model_units: int = value_of("bedrock.model_units")
    commitment: str = value_of("bedrock.commitment")
    instance_type: str = value_of("bedrock.instance_type")

    def problems(self) -> Iterator[str]:
        family = family_of(self.base)
        if family is None:
            yield (
                f"base: {self.base!r} belongs to no family whose jobs are known; allowed: "
                f"{', '.join(sorted(name for name, known in FAMILIES.items() if not known.retired))}"
            )
            return
        if self.customization_type == "CONTINUED_PRE_TRAINING" and not family.pretraining:
            able = ", ".join(sorted(known.label for known in FAMILIES.values() if known.pretraining))
            yield f"customization_type: CONTINUED_PRE_TRAINING, but {family.label} learns answers alone; able: {able}"
        asked = hyperparameters({dial.name: dial.text(getattr(self, dial.name)) for dial in HYPERPARAMETERS})
        yield from hyperparameter_problems(family, asked)
        if self.commitment != "none" and self.serving != "provisioned":
            yield f"commitment: {self.commitment}, but serving is {self.serving}; set serving: provisioned, or none"
