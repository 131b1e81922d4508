"""Files that nobody should send, each from a number: damaged, hostile, odd, of every format that Prepare reads.

name, body, flags = hostile_file(4711)
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from collections.abc import Callable
from typing import Any

SIGNS = [
    "a",
    "Z",
    "ü",
    "é",
    "\u0301",
    "日",
    "\U0001f600",
    "\u202e",
    "\ufeff",
    "\u2028",
    "\x00",
    "\x1a",
    "\x1e",
    "\x85",
    '"',
    "'",
    "\\",
    "\r",
    "\n",
    "\r\n",
    "\t",
    " ",
    "\u00a0",
    ",",
    ";",
    "|",
    "[",
    "{",
    "}",
    "]",
    ":",
    "\ud800",
    "\udfff",
    "=",
    "<",
    "&",
]
NAMES = [
    "prompt",
    "completion",
    "instruction",
    "input",
    "output",
    "question",
    "answer",
    "context",
    "messages",
    "conversations",
    "text",
    "system",
    "tools",
    "history",
    "group",
    "template",
    "slice",
    "id",
    "",
    " prompt ",
    "PROMPT",
]
USUAL = {
    "sft": [
        ["prompt", "completion"],
        ["prompt", "completion", "group"],
        ["messages"],
        ["instruction", "input", "output"],
    ],
    "dpo": [["prompt", "chosen", "rejected"]] * 4,
}
ROLES = [
    "user",
    "assistant",
    "system",
    "tool",
    "human",
    "gpt",
    "function_call",
    "developer",
    "model",
    "",
    None,
    3,
    [],
    {},
]


class Dice(random.Random):
    """Chance, the task that a file's rows are for, and whether all of them are: one of another task ends the run."""

    task = "sft"
    pure = True


def text(dice: Dice) -> str:
    length = dice.choice([0, 1, 1, 3, 8, 8, 30, 400])
    return "".join(dice.choices(SIGNS, k=length)) if dice.random() < 0.5 else "word " * (length // 4) + str(length)


def number(dice: Dice) -> Any:
    return dice.choice([0, -1, 1.5, 1e308, 2**63, 2**64, 10**400, -(10**30), True, False, float("nan"), float("inf")])


def value(dice: Dice, depth: int = 0) -> Any:
    """Any JSON value."""
    kind = dice.random()
    if depth > 3 or kind < 0.45:
        return text(dice)
    if kind < 0.6:
        return number(dice)
    if kind < 0.7:
        return None
    if kind < 0.85:
        return [value(dice, depth + 1) for _ in range(dice.randrange(4))]
    return {dice.choice(NAMES) or text(dice): value(dice, depth + 1) for _ in range(dice.randrange(4))}


def message(dice: Dice) -> Any:
    if dice.random() < 0.08:
        return value(dice)
    made: dict[str, Any] = {
        dice.choice(["role", "role", "from"]): dice.choice(ROLES[: dice.choice([2, 6, len(ROLES)])])
    }
    made[dice.choice(["content", "content", "value"])] = (
        text(dice) if dice.random() < 0.7 else dice.choice([value(dice), [{"type": "text", "text": text(dice)}]])
    )
    if dice.random() < 0.15:
        call = {
            "type": "function",
            "function": {"name": text(dice), "arguments": dice.choice(["{}", "{", {}, value(dice)])},
        }
        made["tool_calls"] = dice.choice([[call], call, [value(dice)], value(dice)])
    if dice.random() < 0.1:
        made[dice.choice(["weight", "tool_call_id", "name", "function_call"])] = dice.choice([0, 1, 2, value(dice)])
    return made


def chat(dice: Dice) -> list[Any]:
    if dice.random() < 0.5:
        turns = [
            {"role": ("user", "assistant")[place % 2], "content": text(dice) or "x"}
            for place in range(2 * dice.randrange(1, 4))
        ]
        return turns
    return [message(dice) for _ in range(dice.randrange(6))]


def row(dice: Dice) -> Any:
    """A row that is right, nearly right, or none."""
    kind = dice.random()
    if dice.pure:
        right = dice.uniform(0, 0.4) if dice.task == "sft" else dice.choice([0.45, 0.57])
        kind = right if kind < 0.8 or dice.task == "dpo" else 0.96
    if kind < 0.25:
        made: Any = {"prompt": text(dice), "completion": text(dice)}
    elif kind < 0.4:
        made = {dice.choice(["messages", "conversations"]): chat(dice)}
    elif kind < 0.5:
        made = {
            "prompt": text(dice),
            "chosen": text(dice),
            "rejected": dice.choice([text(dice), chat(dice), value(dice)]),
        }
    elif kind < 0.55:
        made = {"text": text(dice)}
    elif kind < 0.6:
        made = {"chosen": chat(dice), "rejected": chat(dice)}
    elif kind < 0.65:
        made = {"instruction": text(dice), "output": text(dice), "history": value(dice), "system": value(dice)}
    else:
        return value(dice) if kind > 0.95 else {dice.choice(NAMES): value(dice) for _ in range(dice.randrange(5))}
    for _ in range(dice.choice([0, 0, 0, 1, 2])):
        made[dice.choice(NAMES)] = value(dice)
    return made


def good_rows(dice: Dice) -> list[Any]:
    more = {"group": place} if (place := dice.randrange(4)) else {}
    answers = {"completion": "a"} if dice.task == "sft" else {"chosen": "a", "rejected": "b"}
    return [{"prompt": f"q{number} {text(dice)}", **answers, **more} for number in range(30)]


def rows(dice: Dice) -> list[Any]:
    if dice.random() < 0.8:
        return [*good_rows(dice), *(row(dice) for _ in range(dice.randrange(6)))]
    return [row(dice) for _ in range(dice.randrange(1, 20))]


def encoded(dice: Dice, made: str) -> bytes:
    """In some encoding, or a mixture."""
    kind = dice.random()
    if kind < 0.88:
        return made.encode("utf-8", dice.choice(["surrogatepass", "replace", "replace"]))
    if kind < 0.92:
        return made.encode(dice.choice(["utf-16", "utf-16-le", "utf-8-sig", "utf-32"]), "surrogatepass")
    if kind < 0.95:
        return made.encode("latin-1", "replace")
    middle = len(made) // 2
    return made[:middle].encode("utf-8", "replace") + made[middle:].encode(
        dice.choice(["latin-1", "utf-16"]), "replace"
    )


def as_lines(dice: Dice) -> tuple[str, bytes]:
    ends = "\n" if dice.random() < 0.7 else dice.choice(["\r\n", "\r", "\n\n", "\x00\n", "", " ", ",\n"])
    ascii_ = dice.random() < 0.5
    return f"d.{dice.choice(['jsonl', 'ndjson', 'json'])}", encoded(
        dice, ends.join(json.dumps(made, ensure_ascii=ascii_) for made in rows(dice))
    )


def as_array(dice: Dice) -> tuple[str, bytes]:
    made: Any = rows(dice)
    shape = dice.random()
    if shape < 0.3:
        made = {dice.choice(["data", "rows", "examples", "text"]): made, dice.choice(NAMES): value(dice)}
    elif shape < 0.4:
        made = {"a": made, "b": rows(dice)}
    indent = dice.choice([None, None, 1, "\t"])
    return f"d.{dice.choice(['json', 'json', 'jsonl'])}", encoded(
        dice, json.dumps(made, ensure_ascii=dice.random() < 0.5, indent=indent)
    )


def as_csv(dice: Dice) -> tuple[str, bytes]:
    mark = dice.choice([",", ";", "\t", "|", ":"])
    names = dice.choice([*USUAL[dice.task], ["text"], dice.sample(NAMES, dice.randrange(1, 6))])
    out = io.StringIO()
    if dice.random() < 0.5:
        quoting = dice.choice([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC])
        writer = csv.writer(out, delimiter=mark, quoting=quoting, lineterminator=dice.choice(["\n", "\r\n", "\r"]))
        writer.writerow(names)
        for _ in range(dice.randrange(40)):
            cells = [dice.choice([text(dice), json.dumps(chat(dice)), number(dice), None]) for _ in names]
            writer.writerow(cells if dice.random() < 0.9 else cells * 2)
        made = out.getvalue()
    else:  # quotes as they fall
        quotes = ['"', '""', '"""', '\\"', "'", "", "", ""]
        made = mark.join(names) + "\n"
        for _ in range(dice.randrange(40)):
            made += mark.join(dice.choice(quotes) + text(dice) + dice.choice(quotes) for _ in names) + "\n"
    if dice.random() < 0.1:
        made = f"sep={mark}\n{made}"
    return f"d.{dice.choice(['csv', 'tsv', 'csv', 'CSV', 'txt'])}", encoded(dice, made)


def as_parquet(dice: Dice) -> tuple[str, bytes]:
    import pyarrow
    import pyarrow.parquet

    kinds: list[Callable[[], list[Any]]] = [
        lambda: ["".join(dice.choices("ab \n\x00é", k=5)) for _ in range(30)],
        lambda: [dice.randrange(-5, 5) for _ in range(30)],
        lambda: [dice.choice([None, 1.5, float("nan")]) for _ in range(30)],
        lambda: [dice.choice([None, b"\xff\x00", b"ok"]) for _ in range(30)],
        lambda: [[{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": "a"}] for n in range(30)],
        lambda: [dice.choice([None, {"a": 1}, {"a": 2}]) for _ in range(30)],
        lambda: [dice.choice([None, [], ["x", "y"]]) for _ in range(30)],
    ]
    names = dice.choice([*USUAL[dice.task], dice.sample(NAMES, dice.randrange(1, 5))])
    table = pyarrow.table({name: dice.choice(kinds)() for name in names})
    out = io.BytesIO()
    pyarrow.parquet.write_table(
        table, out, compression=dice.choice(["snappy", "none", "zstd"]), row_group_size=dice.choice([3, 100])
    )
    return f"d.{dice.choice(['parquet', 'pq'])}", out.getvalue()


def as_bytes(dice: Dice) -> tuple[str, bytes]:
    size = dice.choice([0, 1, 2, 3, 4, 17, 1000])
    head = dice.choice(
        [
            b"",
            b"\xef\xbb\xbf",
            b"\xff\xfe",
            b"\xfe\xff",
            b"PAR1",
            b"\x1f\x8b",
            b"\x28\xb5\x2f\xfd",
            b"[",
            b"{",
            b"sep=",
            b'"',
        ]
    )
    return dice.choice(
        ["d.csv", "d.jsonl", "d.json", "d.parquet", "d.tsv", "d.csv.gz", "d.jsonl.zst", "d.json.gz"]
    ), head + dice.randbytes(size)


def as_deep(dice: Dice) -> tuple[str, bytes]:
    opening, closing = dice.choice([("[", "]"), ('{"a":', "}"), ('[{"prompt":', "}]"), ('{"messages":[', "]}")])
    depth = dice.choice([50, 900, 5000, 100_000])
    middle = json.dumps(row(dice))
    made = opening * depth + middle + (closing * depth if dice.random() < 0.7 else "")
    lines = "\n".join(json.dumps(good) for good in good_rows(dice))
    return f"d.{dice.choice(['json', 'jsonl'])}", dice.choice([made, f"{lines}\n{made}", f"[{made}]"]).encode()


FORMS = [as_lines, as_lines, as_lines, as_array, as_array, as_csv, as_csv, as_parquet, as_bytes, as_deep]


def damaged(dice: Dice, body: bytes) -> bytes:
    kind = dice.randrange(6)
    place = dice.randrange(len(body) + 1)
    if kind == 0:
        return body[:place]
    if kind == 1:
        changed = bytearray(body)
        for _ in range(min(len(body), dice.choice([1, 4, 40]))):
            changed[dice.randrange(len(changed))] = dice.randrange(256)
        return bytes(changed)
    if kind == 2:
        return (
            body[:place]
            + "".join(dice.choices(SIGNS, k=3)).encode("utf-8", "surrogatepass") * dice.choice([1, 500])
            + body[place:]
        )
    if kind == 3:
        return body[:place] + body
    if kind == 4:
        return body + dice.choice([b"\x00", b"\x1a", b"]", b"garbage", b"\n" * 100, body[:9]])
    end = dice.randrange(place, len(body) + 1)
    return body[:place] + body[end:]


def hostile_file(seed: int) -> tuple[str, bytes, list[str]]:
    """(name, bytes, options of prepare.py) of the file with that number."""
    import pyarrow

    dice = Dice(seed)
    dice.task, dice.pure = dice.choice(["sft", "sft", "dpo"]), dice.random() < 0.8
    name, body = dice.choice(FORMS)(dice)
    if dice.random() < 0.3:
        body = damaged(dice, body)
    if dice.random() < 0.15 and name.rpartition(".")[2] not in ("parquet", "pq", "gz", "zst"):
        packing = dice.choice(["gz", "zst"])
        body = gzip.compress(body, mtime=0) if packing == "gz" else pyarrow.compress(body, "zstd", asbytes=True)
        name = f"{name}.{packing}"
        if dice.random() < 0.4:
            body = damaged(dice, body)
    flags = [
        "--max-rejected-share",
        dice.choice(["1", "1", "1", "0.05"]),
        "--task",
        dice.choice(["sft", "sft", "sft", "dpo"]),
    ]
    if dice.random() < 0.1:
        flags += ["--group-column", dice.choice(["group", "slice", "\x01"])]
    if dice.random() < 0.1:
        flags += [
            f"--{dice.choice(['prompt', 'messages', 'text', 'system', 'input'])}-column",
            dice.choice(NAMES) or "x",
        ]
    if dice.random() < 0.2:
        flags += ["--mask", "email,phone,iban,card,ip,key"]
    if dice.random() < 0.2:
        flags += ["--near-duplicates", dice.choice(["0.5", "0.8", "1"])]
    if dice.random() < 0.2:
        flags += ["--max-prompt-characters", "40", "--min-answer-characters", "2"]
    if dice.random() < 0.1:
        flags += [dice.choice(["--check", "--look"])]
    return name, body, flags
