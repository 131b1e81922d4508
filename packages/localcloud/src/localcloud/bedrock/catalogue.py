"""Foundation models as Bedrock offers them: where, how they can be used and customized, and until when.

Sources, all documentation pages of Amazon Bedrock: "Model lifecycle (Legacy)" (dates), "Customize a model with
fine-tuning" (contextual ids, Regions), "Deploy a custom model for on-demand inference", "Supported Region and models
for Provisioned Throughput", "Supported Regions and models for batch inference" and "... for inference profiles".
Llama 3.2's end: github.com/awslabs/startups/pull/131. Text models that this product's work needs, not all of Bedrock's.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from localcloud.bedrock.problems import absent, invalid

GONE = "This model version has reached the end of its life. Please refer to the AWS documentation for more details."
UNKNOWN = "The provided model identifier is invalid."
_US = ("us-east-1", "us-east-2", "us-west-2")
_EU = ("eu-central-1", "eu-north-1", "eu-south-1", "eu-south-2", "eu-west-1", "eu-west-3")
_APAC = ("ap-northeast-1", "ap-northeast-2", "ap-south-1", "ap-southeast-1", "ap-southeast-2")
_NOVA = {"us": _US, "eu": _EU, "apac": _APAC}
_CLAUDE = {"us": _US, "eu": _EU, "global": (*_US, *_EU, *_APAC)}
_LLAMA_3_2 = {"us": _US, "eu": ("eu-central-1", "eu-west-1", "eu-west-3")}


@dataclass(frozen=True)
class Lifecycle:
    """Dates of a model's end, where one is announced: legacy, end of life, start of public extended access."""

    legacy: datetime.date
    end: datetime.date
    extended: datetime.date | None = None


@dataclass(frozen=True)
class Foundation:
    """One model. `family` says the form of its bodies and of its training data: nova, claude or llama."""

    id: str
    name: str
    provider: str
    family: str
    most_tokens: int
    """Of one answer."""
    on_demand: tuple[str, ...] = ()
    """Regions in which its own id can be invoked."""
    profiles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Regions in which it can be invoked through an inference profile, by the profile's prefix."""
    tuned: str = ""
    """The contextual id that customization jobs take as their base."""
    tuned_in: tuple[str, ...] = ()
    deployed_in: tuple[str, ...] = ()
    """Regions in which its custom models can be deployed on demand."""
    bought: tuple[str, ...] = ()
    """The contextual ids that Provisioned Throughput is bought for."""
    bought_in: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ("TEXT",)
    lifecycle: Lifecycle | None = None

    @property
    def regions(self) -> set[str]:
        """Where it is known."""
        inner = {region for regions in self.profiles.values() for region in regions}
        return {*self.on_demand, *inner, *self.tuned_in, *self.bought_in}

    def status(self, today: datetime.date) -> str:
        """ACTIVE, LEGACY, or EOL, which no answer shows: a model is gone then."""
        if self.lifecycle is None or today < self.lifecycle.legacy:
            return "ACTIVE"
        return "LEGACY" if today < self.lifecycle.end else "EOL"


def _nova(size: str, name: str, context: str, *, regions: tuple[str, ...], images: bool) -> Foundation:
    base = f"amazon.nova-{size}-v1:0"
    return Foundation(
        base,
        name,
        "Amazon",
        "nova",
        10_000,
        regions,
        _NOVA,
        f"{base}:{context}",
        ("us-east-1",),
        ("us-east-1",),
        (f"{base}:24k", f"{base}:{context}"),
        ("us-east-1",),
        ("TEXT", "IMAGE") if images else ("TEXT",),
    )


def _llama(
    version: str,
    size: str,
    *,
    on_demand: tuple[str, ...] = (),
    profiles: Mapping[str, tuple[str, ...]] | None = None,
    lifecycle: Lifecycle | None = None,
    deployed: bool = False,
    bought: bool = True,
) -> Foundation:
    base = f"meta.llama{version.replace('.', '-')}-{size.lower()}-instruct-v1:0"
    west = ("us-west-2",)
    return Foundation(
        base,
        f"Llama {version} {size} Instruct",
        "Meta",
        "llama",
        2048,
        on_demand,
        profiles or {"us": _US},
        f"{base}:128k",
        west,
        west if deployed else (),
        (f"{base}:128k",) if bought else (),
        west if bought else (),
        ("TEXT", "IMAGE") if size in ("11B", "90B") else ("TEXT",),
        lifecycle,
    )


_LLAMA_3_2_END = Lifecycle(datetime.date(2026, 1, 7), datetime.date(2026, 7, 7))
_HAIKU = "anthropic.claude-3-haiku-20240307-v1:0"
FOUNDATIONS = (
    _nova("micro", "Nova Micro", "128k", regions=("us-east-1", "us-gov-west-1"), images=False),
    _nova(
        "lite",
        "Nova Lite",
        "300k",
        regions=("us-east-1", "us-gov-west-1", "ap-northeast-1", "ap-southeast-2", "eu-north-1", "eu-west-2"),
        images=True,
    ),
    _nova("pro", "Nova Pro", "300k", regions=("us-east-1", "us-gov-west-1"), images=True),
    Foundation(
        "amazon.nova-2-lite-v1:0",
        "Nova 2 Lite",
        "Amazon",
        "nova",
        65_535,
        (),
        {"us": _US, "eu": _EU, "global": (*_US, *_EU, *_APAC)},
        "amazon.nova-2-lite-v1:0:256k",
        ("us-east-1",),
        ("us-east-1",),
        ("amazon.nova-2-lite-v1:0:256k",),
        ("us-east-1",),
        ("TEXT", "IMAGE"),
    ),
    Foundation(
        _HAIKU,
        "Claude 3 Haiku",
        "Anthropic",
        "claude",
        4096,
        (*_US, "ap-northeast-1", "ap-southeast-2", "eu-central-1", "eu-west-1", "eu-west-2", "eu-west-3"),
        {"us": _US, "eu": _EU, "apac": _APAC},
        f"{_HAIKU}:200k",
        ("us-west-2",),
        (),
        (f"{_HAIKU}:48k", f"{_HAIKU}:200k"),
        ("ap-southeast-2", "eu-west-3", "us-east-1", "us-west-2"),
        ("TEXT", "IMAGE"),
        Lifecycle(datetime.date(2026, 3, 10), datetime.date(2026, 9, 10), datetime.date(2026, 6, 10)),
    ),
    Foundation(
        "anthropic.claude-haiku-4-5-20251001-v1:0",
        "Claude Haiku 4.5",
        "Anthropic",
        "claude",
        64_000,
        profiles=_CLAUDE,
        inputs=("TEXT", "IMAGE"),
    ),
    Foundation(
        "anthropic.claude-sonnet-4-5-20250929-v1:0",
        "Claude Sonnet 4.5",
        "Anthropic",
        "claude",
        64_000,
        profiles=_CLAUDE,
        inputs=("TEXT", "IMAGE"),
        lifecycle=Lifecycle(datetime.date(2026, 10, 8), datetime.date(2027, 4, 8), datetime.date(2027, 1, 8)),
    ),
    _llama("3.1", "8B", on_demand=("us-west-2",)),
    _llama("3.1", "70B", on_demand=("us-west-2",)),
    _llama("3.2", "1B", profiles=_LLAMA_3_2, lifecycle=_LLAMA_3_2_END),
    _llama("3.2", "3B", profiles=_LLAMA_3_2, lifecycle=_LLAMA_3_2_END),
    _llama("3.2", "11B", lifecycle=_LLAMA_3_2_END),
    _llama("3.2", "90B", lifecycle=_LLAMA_3_2_END),
    _llama("3.3", "70B", on_demand=("us-east-2",), deployed=True, bought=False),
)
_RETIRED = frozenset(
    {
        *("amazon.titan-text-lite-v1", "amazon.titan-text-express-v1", "amazon.titan-text-premier-v1:0"),
        *("cohere.command-text-v14", "cohere.command-light-text-v14", "cohere.command-r-v1:0"),
        *("cohere.command-r-plus-v1:0", "anthropic.claude-v2:1", "anthropic.claude-instant-v1"),
        *("meta.llama2-13b-chat-v1", "meta.llama2-70b-chat-v1"),
    }
)
"""Models that could once be customized or were in common use, and are gone."""


@dataclass(frozen=True)
class Offer:
    """One id under which a model is offered: its own, or one with a context's length."""

    id: str
    model: Foundation

    @property
    def contextual(self) -> bool:
        return self.id != self.model.id

    def arn(self, region: str) -> str:
        return f"arn:aws:bedrock:{region}::foundation-model/{self.id}"

    def customizations(self, region: str, today: datetime.date) -> list[str]:
        """What can be begun with it: nothing once it is Legacy."""
        tuned = self.id == self.model.tuned and region in self.model.tuned_in
        return ["FINE_TUNING"] if tuned and self.model.status(today) == "ACTIVE" else []

    def inference_types(self, region: str) -> list[str]:
        """How it is used. INFERENCE_PROFILE is in Bedrock's answers, not in botocore's model."""
        if self.contextual:
            return ["PROVISIONED"]
        return ["ON_DEMAND"] if region in self.model.on_demand else ["INFERENCE_PROFILE"]


def offers(region: str) -> Iterator[Offer]:
    """Every id that a Region knows, whatever has become of the model."""
    for model in FOUNDATIONS:
        if region not in model.regions:
            continue
        if region in model.on_demand or any(region in regions for regions in model.profiles.values()):
            yield Offer(model.id, model)
        contexts = dict.fromkeys(
            [*(model.bought if region in model.bought_in else ()), *([model.tuned] if region in model.tuned_in else [])]
        )
        for identifier in contexts:
            yield Offer(identifier, model)


def find(identifier: str, region: str, today: datetime.date) -> Offer:
    """A model by its id or ARN; ValidationException for an id that the Region doesn't know, ResourceNotFoundException
    at the end of its life.
    """
    wanted = identifier
    if identifier.startswith("arn:"):
        wanted = identifier.rpartition("/")[2]
        if identifier.split(":")[3] != region:
            raise invalid(UNKNOWN)
    found = next((offer for offer in offers(region) if offer.id == wanted), None)
    if found is None:
        if any(wanted == retired or wanted.startswith(f"{retired}:") for retired in _RETIRED):
            raise absent(GONE)
        raise invalid(UNKNOWN)
    if found.model.status(today) == "EOL":
        raise absent(GONE)
    return found


def of_profile(profile: str, region: str, today: datetime.date) -> Offer:
    """The model of a cross-region inference profile's id, such as `us.amazon.nova-lite-v1:0`."""
    prefix, _, identifier = profile.partition(".")
    for model in FOUNDATIONS:
        if model.id == identifier and region in model.profiles.get(prefix, ()):
            if model.status(today) == "EOL":
                raise absent(GONE)
            return Offer(model.id, model)
    raise invalid(UNKNOWN)


def is_profile(identifier: str) -> bool:
    """Whether an id is that of an inference profile."""
    return identifier.partition(".")[0] in ("us", "eu", "apac", "global", "us-gov", "jp", "au", "ca")
