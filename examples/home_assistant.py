"""Writes the demo data, spoken commands for a smart home and the tool call each one means.

    python examples/home_assistant.py --output data.jsonl

A row:

    {"prompt": "set the kitchen lights to 40 percent",
     "completion": "{\"name\":\"HassLightSet\",\"arguments\":{\"area\":\"kitchen\",\"brightness\":40}}",
     "template": "HassLightSet/area_brightness/5", "slice": "by area"}

The sentences are sampled from the English templates that ship in Home Assistant (package `home-assistant-intents`,
Apache-2.0, parsed with `hassil`); places, devices and names are ours. Arguments stand in the order in which they are
spoken. `template` is the group column: all sentences of one template belong in the same split, so that a test sentence
never shares its template with training. The same arguments give the same bytes.

Not covered: follow-up questions, several commands in one sentence, languages other than English.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INTENTS = (
    "HassTurnOn",
    "HassTurnOff",
    "HassLightSet",
    "HassClimateSetTemperature",
    "HassFanSetSpeed",
    "HassSetPosition",
    "HassSetVolume",
    "HassStartTimer",
    "HassIncreaseTimer",
    "HassCancelTimer",
)
AREAS = ("kitchen", "living room", "bedroom", "bathroom", "office", "workshop", "hallway", "dining room", "nursery",
         "attic", "laundry room", "guest room", "conservatory", "basement", "playroom", "patio")  # fmt: skip
FLOORS = ("ground", "first", "second", "top", "lower")
NAMES = {
    "light": ("bedside lamp", "ceiling spots", "reading light", "christmas tree", "desk lamp", "mirror strip"),
    "switch": ("coffee machine", "heated blanket", "garden pump", "sound system", "space heater"),
    "fan": ("tower fan", "extractor", "ceiling fan", "desk fan"),
    "cover": ("roller blind", "skylight", "awning", "sunshade"),
    "climate": ("thermostat", "heat pump", "radiator", "air conditioner"),
    "media_player": ("television", "record player", "soundbar", "radio"),
}
TIMER_NAMES = ("pasta", "laundry", "bread", "tea", "workout", "homework", "pizza")
NUMBERS = {
    "brightness": range(5, 101, 5),
    "temperature": range(15, 29),
    "color_temperature": range(2000, 6600, 100),
    "fan_speed": range(10, 101, 10),
    "position": range(5, 100, 5),
    "volume": range(5, 101, 5),
    "timer_hours": range(1, 13),
    "timer_minutes": range(1, 61),
    "timer_seconds": range(5, 61, 5),
}
OPTIONAL_SPOKEN = 0.55
"""Chance that an optional part of a template is spoken."""
MOST_ROWS = 20_000
TEMPLATES_PER_INTENT = 26
ROWS_PER_TEMPLATE = 12
"""More would teach the template by heart; exceeded only when so many rows are asked for."""
BARREN_ROUNDS = 30
"""So many rounds over all templates without a new sentence mean that there are no more."""
SLICES = {"area": "by area", "floor": "by floor", "name": "by device name"}


@dataclass(frozen=True)
class Template:
    """One sentence template with what is needed to speak it."""

    key: str
    intent: str
    expression: Any
    slots: Mapping[str, str]
    names: tuple[str, ...]
    slice: str


class Speaker:
    """Walks hassil's expression trees at random and notes the slots in the order in which they are spoken."""

    def __init__(self, intents: Any) -> None:
        self.rules = intents.expansion_rules
        self.lists = intents.slot_lists

    def say(self, template: Template, dice: random.Random) -> tuple[str, dict[str, Any]]:
        """Returns one sentence of the template and its arguments."""
        arguments: dict[str, Any] = dict(template.slots)
        words = self._walk(template.expression, template, dice, arguments)
        return " ".join(words.split()), arguments

    def _walk(self, node: Any, template: Template, dice: random.Random, arguments: dict[str, Any]) -> str:
        from hassil import expression as tree

        if isinstance(node, tree.TextChunk):
            return str(node.original_text)
        if isinstance(node, tree.RuleReference):
            return self._walk(self.rules[node.rule_name].expression, template, dice, arguments)
        if isinstance(node, tree.ListReference):
            text, value = self._value(node.list_name, template, dice)
            arguments[node.slot_name] = value
            return text
        if isinstance(node, tree.Alternative):
            choices = [item for item in node.items if not _is_empty(item)]
            if len(choices) < len(node.items) and dice.random() > OPTIONAL_SPOKEN:
                return ""
            return self._walk(dice.choice(choices), template, dice, arguments)
        items = list(node.items)
        if isinstance(node, tree.Permutation):
            dice.shuffle(items)
            return " ".join(self._walk(item, template, dice, arguments) for item in items)
        return "".join(self._walk(item, template, dice, arguments) for item in items)

    def _value(self, name: str, template: Template, dice: random.Random) -> tuple[str, Any]:
        if name in NUMBERS:
            number = dice.choice(NUMBERS[name])
            return str(number), number
        ours = {"area": AREAS, "floor": FLOORS, "name": template.names, "timer_name": TIMER_NAMES}.get(name)
        if ours:
            word = dice.choice(ours)
            return word, word
        chosen = dice.choice(self.lists[name].values)
        return self._walk(chosen.text_in, template, dice, {}), chosen.value_out


def _is_empty(node: Any) -> bool:
    return (getattr(node, "text", None) == "") or (
        hasattr(node, "items") and all(_is_empty(item) for item in node.items) and not hasattr(node, "list_name")
    )


def _load_intents() -> Any:
    try:
        import home_assistant_intents
        from hassil import Intents
    except ImportError as error:
        raise SystemExit(
            f"home_assistant: {error.name} is missing; install it: pip install home-assistant-intents hassil"
        ) from None
    path = Path(home_assistant_intents.__file__).parent / "data" / "en.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    return Intents.from_dict({"language": "en", "intents": {name: document["intents"][name] for name in INTENTS}}
                             | {key: document[key] for key in ("lists", "expansion_rules")})  # fmt: skip


def _names_for(domains: Any) -> tuple[str, ...]:
    domains = [domains] if isinstance(domains, str) else (domains or [])
    return tuple(name for domain in domains for name in NAMES.get(domain, ()))


def templates(intents: Any) -> list[Template]:
    """Lists the usable templates: every list in them has values of ours, and the label follows from the words alone."""
    found: list[Template] = []
    for intent in INTENTS:
        usable: list[Template] = []
        blocks = intents.intents[intent].data
        domains = {block.slots["domain"] for block in blocks if block.slots and "domain" in block.slots}
        for block in blocks:
            slots = dict(block.slots or {})
            if len(domains) == 1:
                slots.pop("domain", None)  # the tool's name already says it
            names = _names_for((block.requires_context or {}).get("domain"))
            combination = (block.metadata or {}).get("slot_combination", "any")
            for sentence in block.sentences:
                lists = set(sentence.list_names(intents.expansion_rules))
                known = set(NUMBERS) | {"area", "floor", "timer_name", "cover_classes", "color", "brightness_level"}
                known |= {"color_temperature_names", "timer_half"} | ({"name"} if names else set())
                if not lists <= known:
                    continue
                where = next((label for name, label in SLICES.items() if name in lists), "no place named")
                usable.append(Template(f"{intent}/{combination}/{slots.get('domain', '')}{len(usable)}", intent,
                                       sentence.expression, slots, names, where))  # fmt: skip
        step = max(1.0, len(usable) / TEMPLATES_PER_INTENT)
        found += [usable[int(index * step)] for index in range(min(len(usable), TEMPLATES_PER_INTENT))]
    return found


def build_rows(rows: int = 1500, seed: int = 7) -> list[dict[str, str]]:
    """Returns `rows` different commands, balanced over the tools (as far as their templates go) and templates.

    Each row has `prompt`, `completion` (compact JSON), `template` (group column) and `slice` (how the command says
    where it acts). No two rows share a prompt.
    """
    if not 1 <= rows <= MOST_ROWS:
        raise ValueError(f"{rows} rows asked for; allowed: 1 to {MOST_ROWS}")
    speaker_intents = _load_intents()
    speaker = Speaker(speaker_intents)
    by_intent: dict[str, list[Template]] = {name: [] for name in INTENTS}
    for template in templates(speaker_intents):
        by_intent[template.intent].append(template)
    built: list[dict[str, str]] = []
    taken: set[str] = set()
    for intent, wanted in _shares(by_intent, rows).items():
        built += _rows_of(intent, by_intent[intent], wanted, seed, speaker, taken)
    if len(built) < rows:
        raise ValueError(f"the templates give {len(built)} different commands, {rows} were asked for; ask for fewer")
    random.Random(seed).shuffle(built)  # noqa: S311 (no secret)
    return built


def _shares(by_intent: Mapping[str, list[Template]], rows: int) -> dict[str, int]:
    """Says how many rows each tool gets: the same, but what a tool with few templates can't take, the others share."""
    most = max(ROWS_PER_TEMPLATE, -(-rows // sum(map(len, by_intent.values()))))
    shares: dict[str, int] = {}
    for position, (intent, choices) in enumerate(sorted(by_intent.items(), key=lambda entry: len(entry[1]))):
        even = -(-(rows - sum(shares.values())) // (len(by_intent) - position))
        shares[intent] = min(even, len(choices) * most)
    return shares


def _rows_of(
    intent: str, choices: list[Template], wanted: int, seed: int, speaker: Speaker, taken: set[str]
) -> Iterator[dict[str, str]]:
    dice = {template.key: random.Random(f"{seed}/{template.key}") for template in choices}  # noqa: S311
    made = 0
    barren = 0
    while barren < BARREN_ROUNDS:
        barren += 1
        for template in choices:
            if made == wanted:
                return
            prompt, arguments = speaker.say(template, dice[template.key])
            if prompt in taken:
                continue
            taken.add(prompt)
            made += 1
            barren = 0
            call = json.dumps({"name": intent, "arguments": arguments}, separators=(",", ":"), ensure_ascii=False)
            yield {"prompt": prompt, "completion": call, "template": template.key, "slice": template.slice}


def write_dataset(path: Path, rows: int = 1500, seed: int = 7) -> Path:
    """Writes the rows to `path` as JSON lines, or as CSV where the name ends in .csv; replaces it in one move."""
    path = Path(path)
    built = build_rows(rows, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            writer = csv.DictWriter(file, fieldnames=list(built[0]))
            writer.writeheader()
            writer.writerows(built)
        else:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in built)
    os.replace(partial, path)
    return path


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Writes the demo data: smart-home commands and the tool call each means."
    )
    parser.add_argument("--output", type=Path, required=True, help="file to write (.jsonl or .csv)")
    parser.add_argument("--rows", type=int, default=1500, help="rows to write (default 1500)")
    parser.add_argument("--seed", type=int, default=7, help="another seed gives other sentences (default 7)")
    options = parser.parse_args(arguments)
    try:
        path = write_dataset(options.output, options.rows, options.seed)
    except (OSError, ValueError) as error:
        print(f"home_assistant: {error}", file=sys.stderr)
        return 1
    print(f"{path}: {options.rows} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
