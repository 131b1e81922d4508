"""Languages by py3langid, scripts by Unicode's names."""

from __future__ import annotations

import pytest

from common.languages import NONE, has_languages, language_of, script_of


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Where is the next station, please?", "en"),
        ("Wo ist der nächste Bahnhof, bitte?", "de"),
        ("Где находится ближайший вокзал?", "ru"),
        ("最近的车站在哪里？", "zh"),
        ("12 + 3 = 15", NONE),
        ("\ud800 \x00", NONE),
        ("", NONE),
    ],
)
def test_languages(text: str, code: str) -> None:
    assert has_languages()
    assert language_of(text) == code


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Where is it?", "Latin"),
        ("Ｗｈｅｒｅ", "Latin"),
        ("Где вокзал? ok", "Cyrillic"),
        ("最近的车站", "Han"),
        ("これはなに", "Hiragana"),
        ("어디예요", "Hangul"),
        ("1 2 3", NONE),
    ],
)
def test_scripts(text: str, script: str) -> None:
    assert script_of(text) == script
