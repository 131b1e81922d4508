"""Replaces personal data and secrets of known forms by their kind. Runs in the Prepare step's processing container.

    Masker(["email", "iban"]).mask("Write to ann@example.com")        # "Write to <EMAIL>", counted

Only what a form or check digits tell is found: names, addresses, birthdays, account numbers without check digits and
telephone numbers without country code, area code or separators are not, and a version number such as 1.2.3.4 looks like
an IP address. It lowers a risk and is no proof that nothing personal is left. Every repetition in a form is bounded, so
that no text takes long.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

# Lengths of IBANs by country (SWIFT's registry).
_IBANS = (
    "15:NO 16:BE 18:DK,FI,FO,GL,NL,SD 19:MK,SI 20:AT,BA,EE,KZ,LT,LU,XK 21:CH,HR,LI,LV 22:BG,BH,CR,DE,GB,GE,IE,ME,RS,VA "
    "23:AE,GI,IL,IQ,TL 24:AD,CZ,ES,MD,PK,RO,SA,SE,SK,TN,VG 25:LY,PT,ST 26:IS,TR 27:FR,GR,IT,MC,MR,SM "
    "28:AL,AZ,BY,CY,DO,GT,HU,LB,PL,SV 29:BR,EG,PS,QA,UA 30:JO,KW,MU 31:MT,SC 32:LC"
)
_IBAN_LENGTHS = {
    country: int(length)
    for length, _, countries in (part.partition(":") for part in _IBANS.split())
    for country in countries.split(",")
}
_BLANKS = re.compile(r"[ \-]")


def _iban(text: str) -> int:
    """How many characters of the text, which begins as an IBAN does, are one; 0: it is none."""
    wanted = _IBAN_LENGTHS.get(text[:2], 0)
    held = ""
    for place, character in enumerate(text, 1):
        if character != " ":
            held += character
        if len(held) == wanted:
            moved = held[4:] + held[:4]
            ends = place == len(text) or not text[place].isalnum()
            return place if ends and int("".join(str(int(sign, 36)) for sign in moved)) % 97 == 1 else 0
    return 0


def _card(text: str) -> int:
    """The whole text, if its digits are a payment card's: a known beginning, and Luhn's check digit."""
    digits = _BLANKS.sub("", text)
    if not re.match(r"4|5[1-5]|2[2-7]|3[0-9]|6(?:011|4|5)", digits):
        return 0
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits))]
    return len(text) if sum(digit - 9 * (digit > 9) for digit in doubled) % 10 == 0 else 0


def _ip(text: str) -> int:
    """The whole text, if it is an IP address; a version 6 one with two groups and five digits at least."""
    if ":" in text and (len(text.replace(":", "")) < 5 or sum(map(bool, text.split(":"))) < 2):
        return 0
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return 0
    return len(text)


_KEYS = (
    r"(?:AKIA|ASIA)[A-Z0-9]{16}",  # AWS
    r"gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_\w{22,255}|glpat-[\w\-]{20,255}",
    r"sk-[\w\-]{20,255}|hf_[A-Za-z0-9]{30,64}|AIza[\w\-]{35}",  # OpenAI and Anthropic, Hugging Face, Google
    r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,255}|xox[abeprs]-[\w\-]{10,255}|npm_[A-Za-z0-9]{36}",
    r"eyJ[\w\-]{10,4096}\.eyJ[\w\-]{10,4096}\.[\w\-]{10,4096}",  # JSON web tokens
)
_ALL: dict[str, tuple[str, str, Callable[[str], int] | None]] = {
    # kind: what a text with it holds, its form, and the check of what has that form
    "key": (
        "",
        rf"(?<![\w\-])(?:{'|'.join(_KEYS)})(?![\w\-])"
        r"|-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[\w+/=\s\-:,]{1,8000}?-----END [A-Z ]{0,30}PRIVATE KEY-----",
        None,
    ),
    "email": ("@", r"(?<![\w.+%\-])[\w.+%\-]{1,64}@(?:[\w\-]{1,63}\.){1,8}[^\W\d_]{2,24}(?![\w\-])", None),
    "iban": ("", r"(?<!\w)[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}", _iban),
    "card": ("", r"(?<![\w.,\-])[0-9](?:[ \-]?[0-9]){12,18}(?![\w\-]|[.,][0-9])", _card),
    "ip": (
        "",
        r"(?<![\w.:])(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?!\w|\.[0-9])"
        r"|[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:]|\.[0-9]))",
        _ip,
    ),
    "phone": (
        "",
        r"(?<![\w+.,\-/])(?:"
        r"(?:\+|00)[1-9](?:[ \-./()]{0,2}[0-9]){6,14}"  # with a country code
        r"|\(?[2-9][0-9]{2}\)?[ .\-][2-9][0-9]{2}[ .\-][0-9]{4}"  # North America
        r"|\(?0[1-9][0-9]{1,4}\)?[ /\-]{1,3}[0-9]{2,4}(?:[ \-]?[0-9]{2,4}){1,3}"  # with an area code
        r")(?![\w]|[.,\-/][0-9])",
        None,
    ),
}
KINDS = tuple(_ALL)


class Masker:
    """Replaces what it is told to look for, and counts it by kind."""

    def __init__(self, kinds: Iterable[str]) -> None:
        wanted = set(kinds)
        self._forms = [
            (kind, held, re.compile(form), check) for kind, (held, form, check) in _ALL.items() if kind in wanted
        ]
        self.counts: Counter[str] = Counter()

    def mask(self, text: str) -> str:
        """The text with `<EMAIL>` and the like in place of what was found."""
        for kind, held, form, check in self._forms:
            if held in text:
                text = self._masked(text, kind, form, check)
        return text

    def _masked(self, text: str, kind: str, form: re.Pattern[str], check: Callable[[str], int] | None) -> str:
        parts, done = [], 0
        for found in form.finditer(text):
            size = check(found[0]) if check else len(found[0])
            if size:
                parts += [text[done : found.start()], f"<{kind.upper()}>"]
                done = found.start() + size
                self.counts[kind] += 1
        return "".join([*parts, text[done:]]) if parts else text

    def mask_all(self, value: Any) -> Any:
        """The same of every text in lists and objects; keys stay."""
        if isinstance(value, str):
            return self.mask(value)
        if isinstance(value, Mapping):
            return {key: self.mask_all(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.mask_all(item) for item in value]
        return value
