"""One dial: what pipeline.yaml calls it, which values it takes, what turning it does, and who reads it.

Runs in every container and function, and on the author's machine; only the standard library is needed. The table itself
is `common/{data,training,evaluation,endpoint}_dials.py` and `configuration/account_dials.py`, one file for each part of
pipeline.yaml. From it come the configuration's checks, the pipeline's parameters, the command lines of the shipped
scripts, the deploy function's settings, pipeline.yaml's comments and docs/dials.md. A range or a list of choices stands
nowhere else.

    RANK = Dial("training.lora_rank", 16, "capacity of the adapters", low=1, high=1024, parameter="LoraRank")
    RANK.read("32")       # 32
    RANK.read("0")        # DialError: '0' is refused; allowed: a whole number from 1 to 1024 (capacity of the adapters)
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

MAX_SHOWN = 120

# S3 general purpose bucket names: 3 to 63 characters, no two dots in a row, no reserved beginning or end.
BUCKET = (
    r"(?!xn--|sthree-|amzn-s3-demo-)(?!\d+\.\d+\.\d+\.\d+(?:/|$))(?![^/]*\.\.)(?![^/]*(?:-s3alias|--ols-s3|\.mrap|--x-s3)(?:/|$))"
    r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
)
# Of a key's characters those that a model package's metadata takes: the version says where its rows and base came from.
S3_URI = rf"s3://{BUCKET}(?:/[\w.:/=+@-]*)?"
INSTANCE_TYPE = r"ml\.[a-z0-9-]+\.[a-z0-9]+"
INSTANCE_WORDS = "an ML instance type such as ml.g5.2xlarge"
MOST_FALLBACKS = 4  # InstancePreferences and InstancePools have up to 5 members, the instance type itself among them


class DialError(ValueError):
    """A value that a dial doesn't take; the message says which value, what is allowed and what the dial does."""


@dataclass(frozen=True)
class Dial:
    """One value that somebody may want to change.

    `default` decides the type: text, whole number, number, true/false or list; an `optional` dial may be null, which
    means what `effect` says. A number lies between `low` and `high`; a text matches `pattern` whole (`words` says so in
    English) or is one of `choices`, and has up to `longest` characters; a list has `low` to `high` items, each of which
    matches. `also` returns what else is wrong with a value that has passed all this.
    """

    key: str
    """Where pipeline.yaml has it: `training.lora_rank`."""
    default: Any
    effect: str
    """What turning it does, in a few words."""
    unit: str = ""
    kind: type | None = None
    """Given for optional dials, whose default doesn't tell."""
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] = ()
    pattern: str = ""
    words: str = ""
    longest: int = 0
    optional: bool = False
    also: Callable[[Any], str | None] | None = None
    parameter: str = ""
    """The pipeline parameter that overrides it for one run; empty: a change needs an upsert."""
    argument: str = ""
    """The option of the shipped script that gets it: `learning_rate` for train.py, `few-shot` for score.py."""
    setting: str = ""
    """The deploy function's name for it."""
    shape: str = ""
    """The API's own list of allowed values (a botocore shape), looked at where botocore is at hand."""

    @property
    def type(self) -> type:
        return self.kind or type(self.default)

    @property
    def name(self) -> str:
        """The last part of its key."""
        return self.key.rpartition(".")[2]

    @property
    def comment(self) -> str:
        """What pipeline.yaml says beside it: choices or unit, then the effect."""
        choices = " | ".join(map(str, self.choices)) if self.type is str else ""
        return f"{choices}: {self.meaning}" if choices else self.meaning

    @property
    def meaning(self) -> str:
        """Unit and effect."""
        return f"{self.unit}: {self.effect}" if self.unit else self.effect

    def allowed(self) -> str:
        """The values that it takes, in words."""
        null = " or null" if self.optional else ""
        if self.choices:
            *most, last = map(str, self.choices)
            return (f"{', '.join(most)} or {last}" if most else last) + null
        if self.type is bool:
            return f"true or false{null}"
        if self.type is str:
            limit = f", up to {self.longest} characters" if self.longest else ""
            return f"{self.words or 'text'}{limit}{null}"
        if self.type is dict:
            return f"a mapping of up to {_plain(self.high)} keys"
        if self.type is list:
            words = f", each {self.words}" if self.words else ""
            return f"a list of {_plain(self.low)} to {_plain(self.high)} items{words}{null}"
        noun = "a whole number" if self.type is int else "a number"
        return f"{noun} from {_plain(self.low)} to {_plain(self.high)}{null}"

    def refusal(self, value: Any) -> str:
        """The sentence for a value that is refused."""
        shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
        shown = shown if len(shown) <= MAX_SHOWN else shown[: MAX_SHOWN - 3] + "..."
        return f"{shown} is refused; allowed: {self.allowed()} ({self.meaning})"

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value of the right type, or None."""
        if value is None:
            return None if self.optional else self.refusal(value)
        if self.choices:
            return None if value in self.choices else self.refusal(value)
        if isinstance(value, list):
            return self._list_problem(value)
        if isinstance(value, dict) and len(value) > (self.high or math.inf):
            return f"{len(value)} keys are refused; allowed: {self.allowed()} ({self.meaning})"
        if isinstance(value, str):
            fits = not self.longest or len(value) <= self.longest
            if not fits or (self.pattern and not re.fullmatch(self.pattern, value)):
                return self.refusal(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            low = -math.inf if self.low is None else self.low
            high = math.inf if self.high is None else self.high
            if not (math.isfinite(value) and low <= value <= high):
                return self.refusal(value)
        return self.also(value) if self.also else None

    def _list_problem(self, values: list[Any]) -> str | None:
        if not (self.low or 0) <= len(values) <= (self.high or math.inf):
            return f"{len(values)} items are refused; allowed: {self.allowed()} ({self.meaning})"
        for index, value in enumerate(values):
            if not isinstance(value, str) or (self.pattern and not re.fullmatch(self.pattern, value)):
                return f"[{index}]: {value!r} is refused; allowed: {self.words} ({self.meaning})"
        return None

    def read(self, value: Any) -> Any:
        """The value in the dial's type, from a text (command line, parameter, metadata) or a plain value.

        Raises DialError.
        """
        try:
            found = self._convert(value)
        except (TypeError, ValueError, OverflowError):
            raise DialError(self.refusal(value)) from None
        problem = self.problem(found)
        if problem:
            raise DialError(problem)
        return found

    def _convert(self, value: Any) -> Any:
        text = str(value)
        if self.type is bool:
            if text.lower() not in ("true", "false"):
                raise ValueError
            return text.lower() == "true"
        if self.type is int:
            number = float(value)  # "4.0" is how Java writes a whole number
            if not number.is_integer():
                raise ValueError
            return int(number)
        if self.type is float:
            return float(value)
        if self.type is list:
            return value if isinstance(value, list) else [item for item in text.split(",") if item]
        return text

    def text(self, value: Any) -> str:
        """The value as AWS wants it in hyperparameters, arguments and metadata; `read` gets it back."""
        if isinstance(value, bool):
            return str(value).lower()
        if self.type is float:
            return repr(float(value))
        return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _plain(number: float | None) -> str:
    """A limit as people write it: 4096, 0.05, 1e-09."""
    if number is None:
        return "any"
    return str(int(number)) if float(number).is_integer() and abs(number) < 1e16 else f"{number:g}"


def add_arguments(parser: argparse.ArgumentParser, dials: Iterable[Dial]) -> None:
    """One `--option VALUE` for each dial that the script reads, with the dial's default, check and effect."""
    for dial in dials:
        shown = dial.text(dial.default) if dial.default is not None else "none"
        parser.add_argument(
            f"--{dial.argument}",
            type=reader(dial),
            default=dial.default,
            metavar="VALUE",
            help=f"{dial.meaning}; {dial.allowed()} (default: {shown})".replace("%", "%%"),
        )


def reader(dial: Dial) -> Callable[[str], Any]:
    """The dial as argparse's `type`: its refusal becomes the usage error."""

    def read(text: str) -> Any:
        try:
            return dial.read(text)
        except DialError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read
