"""Masking, lengths, languages and near-duplicates: what they take, what they leave, and that counts add up."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest

from .conftest import Prepare

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"
MASKED = [
    ("email", "Write to Ann.Lee+x@mail.example.co.uk.", "Write to <EMAIL>."),
    ("email", "<jürgen@bücher.example>", "<<EMAIL>>"),
    ("phone", "Call +49 (30) 123456-78 or 0049 30 12345678!", "Call <PHONE> or <PHONE>!"),
    ("phone", "(555) 234-5678, 555-234-5678; 0171 / 234 56 78", "<PHONE>, <PHONE>; <PHONE>"),
    ("iban", "DE89 3704 0044 0532 0130 00 AND more", "<IBAN> AND more"),
    ("iban", "to GB82WEST12345698765432.", "to <IBAN>."),
    ("card", "4111 1111 1111 1111 and 5500-0055-5555-5559", "<CARD> and <CARD>"),
    ("card", "378282246310005", "<CARD>"),
    ("ip", "from 192.168.0.254:80 to 2001:db8::ff00:42:8329.", "from <IP>:80 to <IP>."),
    ("key", "AKIAIOSFODNN7EXAMPLE, hf_" + "a" * 34, "<KEY>, <KEY>"),
    ("key", f"Bearer {JWT}", "Bearer <KEY>"),
    ("key", "sk-ant-" + "a1" * 20, "<KEY>"),
    ("key", "-----BEGIN RSA PRIVATE KEY-----\nMIIE+/=\n-----END RSA PRIVATE KEY-----", "<KEY>"),
]  # fmt: skip
LEFT = [
    "a@b, @handle, user@localhost, price@5.00",
    "DE89370400440532013001 has a wrong check digit; XX00 is no country",
    "4111 1111 1111 1112 fails Luhn; order 1234567890123452 is no card's beginning",
    "12:30:45, std::vector, 300.1.1.1, a::b, 1.2.3",
    "2024-01-02, 01/02/2024, 1,000,000, 3.14159265358979, 2 + 2 = 4",
    "sk-short, eyJ.eyJ, AKIA, the-sk-learn-library-is-a-library",
    "\ud800 lone \x00 zero",
]


@pytest.mark.parametrize(("kind", "text", "masked"), MASKED)
def test_what_has_a_form_is_masked(kind: str, text: str, masked: str) -> None:
    from masking import KINDS, Masker

    from common.data_dials import MASKED as ALL

    assert set(KINDS) == set(ALL)
    for kinds in ([kind], ALL):
        masker = Masker(kinds)
        assert masker.mask(text) == masked
        assert masker.counts == {kind: masked.count(f"<{kind.upper()}>")}


@pytest.mark.parametrize("text", LEFT)
def test_what_only_looks_like_it_stays(text: str) -> None:
    from masking import KINDS, Masker

    assert Masker(KINDS).mask(text) == text


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_every_message_of_every_kind_of_row_is_masked(tmp_path: Path, prepare: Prepare) -> None:
    mail = "ann@example.com"
    call = {"type": "function", "function": {"name": "send", "arguments": json.dumps({"to": mail, "n": [mail]})}}
    rows: list[Any] = [{"prompt": f"{n} {mail}", "completion": mail, "system": mail} for n in range(5)]
    for n in range(5):
        asked = {"role": "user", "content": f"to {mail} {n}"}
        called = {"role": "assistant", "content": "", "tool_calls": [call]}
        result, said = {"role": "tool", "content": f"sent to {mail}"}, {"role": "assistant", "content": mail}
        rows.append({"messages": [asked, called, result, said]})
    data = write(tmp_path / "rows.jsonl", [*rows, {"prompt": mail}, f"{mail} is no row"])
    done = prepare(data, "--mask", "email", "--max-rejected-share", "1")
    assert done.code == 0, done.err
    done.check_counts()
    assert done.report["masked"] == {"email": 5 * 3 + 5 * 5}
    assert "[prepare] masked: email 40" in done.out
    written = b"".join(path.read_bytes() for path in done.directory.rglob("*") if path.is_file())
    assert mail.encode() not in written, "not in rejected rows either"
    assert written.count(b"<EMAIL>") == 40 + 2
    arguments = [
        row["messages"][1]["tool_calls"][0]["function"]["arguments"]
        for row in done.rows
        if row["messages"][1].get("tool_calls")
    ]
    assert json.loads(arguments[0]) == {"to": "<EMAIL>", "n": ["<EMAIL>"]}
    plain = prepare(data, "--max-rejected-share", "1")
    assert plain.report["masked"] == {}
    assert mail in json.dumps(plain.rows)


def test_masked_preferences_that_become_alike_are_rejected(tmp_path: Path, prepare: Prepare) -> None:
    rows = [
        {"prompt": f"q{n}", "chosen": "a@example.com", "rejected": f"b{n % 2}@example.{'com' if n else 'x'}"}
        for n in range(4)
    ]
    done = prepare(
        write(tmp_path / "rows.jsonl", rows), "--task", "dpo", "--mask", "email", "--max-rejected-share", "1"
    )
    assert done.report["reasons"] == {"same answers": 3}


@pytest.mark.parametrize(
    ("flags", "kept", "reason"),
    [
        (["--min-prompt-characters", "3"], {10, 200}, "short prompt"),
        (["--max-prompt-characters", "50"], {1, 10}, "long prompt"),
        (["--min-answer-characters", "10"], {10, 200}, "short answer"),
        (["--max-answer-characters", "10"], {1, 10}, "long answer"),
    ],
)
def test_rows_are_left_out_for_their_lengths(
    flags: list[str], kept: set[int], reason: str, tmp_path: Path, prepare: Prepare
) -> None:
    rows = [{"prompt": chr(97 + n) * size, "completion": "c" * size} for size in (1, 10, 200) for n in range(20)]
    done = prepare(write(tmp_path / "rows.jsonl", rows), *flags, "--max-rejected-share", "0")
    assert done.code == 0, done.err
    done.check_counts()
    assert {len(row["messages"][0]["content"]) for row in done.rows} == kept
    assert (done.report["filtered"], done.report["taken"]) == (20, {reason: 20})
    assert "filtered=20" in done.out
    assert all(entry["reason"].startswith(f"{reason}: ") and entry["row"]["prompt"] for entry in done.rejected)


def test_rows_in_other_languages_are_left_out(tmp_path: Path, prepare: Prepare) -> None:
    said = {"en": "Where is the next station, please?", "de": "Wo ist denn der nächste Bahnhof, bitte?",
            "ru": "Где находится ближайший вокзал?", "none": "1 + 1 ="}  # fmt: skip
    rows = [
        {"prompt": f"{text} {n}", "completion": text, "slice": code} for n in range(12) for code, text in said.items()
    ]
    done = prepare(write(tmp_path / "rows.jsonl", rows), "--languages", "en,ru")
    assert done.code == 0, done.err
    done.check_counts()
    assert {row["slice"] for row in done.rows} == {"en", "ru", "none"}
    assert done.report["taken"] == {"another language": 12}
    assert "another language: it seems to be de; kept: en, ru" in done.rejected[0]["reason"]


def pieces(text: str) -> set[str]:
    return {text.lower()[place : place + 5] for place in range(len(text) - 4)}


def similarity(one: set[str], other: set[str]) -> float:
    """By definition, to hold the estimate against."""
    return len(one & other) / len(one | other)


def varied(seed: int, families: int, most_edits: int) -> list[str]:
    """Texts of 60 words in families: each is another with some words changed."""
    dice = random.Random(seed)
    words = ["".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=dice.randint(3, 9))) for _ in range(3000)]
    texts = []
    for _ in range(families):
        first = dice.choices(words, k=60)
        texts.append(" ".join(first))
        for _ in range(4):
            changed = list(first)
            for _ in range(dice.randint(0, most_edits)):
                changed[dice.randrange(60)] = dice.choice(words)
            texts.append(" ".join(changed))
    dice.shuffle(texts)
    return texts


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
def test_minhash_finds_what_the_definition_says(threshold: float) -> None:
    from near_duplicates import NearDuplicates

    texts = varied(1, 60, 20)
    held = [pieces(text) for text in texts]
    near = NearDuplicates(threshold)
    found = [like for start in range(0, 300, 100)
             for like in near.add(texts[start : start + 100], 0, list(range(start, start + 100)))]  # fmt: skip
    kept = [number for number, like in enumerate(found) if like is None]
    assert len(near) == len(kept)
    clear = 0
    for number, like in enumerate(found):
        best = max((similarity(held[number], held[other]) for other in kept if other < number), default=0.0)
        if like is not None:
            assert abs(similarity(held[number], held[like[1]]) - like[2]) < 0.18
            assert best > threshold - 0.15, (number, best)
            clear += best > threshold + 0.1
        else:
            assert best < threshold + 0.12, (number, best)
    assert clear > 5 or threshold > 0.9


def test_no_two_rows_left_are_nearly_the_same_in_whatever_splits(tmp_path: Path, prepare: Prepare) -> None:
    texts = varied(2, 100, 3)
    rows = [{"prompt": text[:200], "completion": text[200:]} for text in texts]
    data = write(tmp_path / "rows.jsonl", rows)
    before, done = prepare(data), prepare(data, "--near-duplicates", "0.7")
    assert done.code == 0, done.err
    done.check_counts()
    assert before.report["near_duplicates"] == 0
    crossing = []
    for outcome in (before, done):
        sides = []
        for name in ("train", "test"):
            chats = [row["messages"] for row in outcome.split(name)]
            sides.append([pieces(f"{asked['content']}\n{told['content']}") for asked, told in chats])
        crossing.append(sum(similarity(one, other) > 0.8 for one, other in itertools.product(*sides)))
    assert crossing[0] > 20
    assert crossing[1] == 0
    assert 100 <= done.report["rows_out"] < 140
    assert f"near_duplicates={done.report['near_duplicates']}" in done.out
    assert all(
        entry["reason"].startswith("near-duplicate: similarity 0.") or "1.00" in entry["reason"]
        for entry in done.rejected
    )
    assert "to rows.jsonl, line " in done.rejected[0]["reason"]


def test_short_and_long_texts_have_neighbours_too() -> None:
    from near_duplicates import NearDuplicates

    near = NearDuplicates(0.8)
    long = " ".join(varied(3, 40, 0))
    texts = [
        "",
        "a",
        "A ",
        "b",
        "ab cd",
        "ab  cd",
        long,
        long + " end",
        "\ud800x",
        "日本語の文です",
        "日本語の文です。",
    ]
    found = near.add(texts, 0, list(range(len(texts))))
    assert [None if like is None else like[1] for like in found][:8] == [None, None, 1, None, None, 4, None, 6]
