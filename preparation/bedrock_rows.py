"""Checks a row against what a family's fine-tuning job takes, and estimates its tokens.

Runs in the Prepare step's processing container (CPU).

    check_row({"prompt": "hi", "completion": "hello"}, FAMILIES["titan"])    # Size(prompt=1, answers=1)
    check_row({"prompt": "hi"}, FAMILIES["titan"])                           # RowError: missing field: ...

The first thing that is wrong is said. Not covered: whether images and videos are there, and how large they are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from bedrock_forms import SCHEMA, form_of
from bedrock_lines import kind_of_value

from common.bedrock_families import DOCUMENTED, TEXTS, Family, Limits
from common.rows import RowError

ROLES = ("user", "assistant")
IMAGES = ("jpeg", "png", "gif", "webp")
VIDEOS = ("mov", "mkv", "mp4", "webm")


class Size(NamedTuple):
    """Estimated tokens, and what media the row has."""

    prompt: int
    answers: int
    images: int = 0
    videos: int = 0


def check_row(row: Mapping[str, Any], family: Family) -> Size:
    """What a good row holds; raises RowError for any other."""
    form = form_of(row)
    if form == TEXTS:
        return _texts(row, family)
    if form and form != family.form:
        raise RowError(
            "another form", f"{form}; a job on {family.label} takes {family.form}, to which Prepare converts it"
        )
    check = _pair if family.form == "prompt-completion" else _conversation
    return _within(check(row, family), family.limits)


def tokens(texts: Iterable[str], limits: Limits) -> int:
    """About how many tokens: by the documented 6 characters for each, else on the safe side."""
    count = 0.0
    for text in texts:
        if limits.characters_per_token == DOCUMENTED:
            count += len(text) / DOCUMENTED
        else:
            plain = len(text) if text.isascii() else len(text.encode("ascii", "ignore"))
            count += plain / limits.characters_per_token + (len(text) - plain)
    return math.ceil(count)


def _within(size: Size, limits: Limits) -> Size:
    told = f"estimated at {limits.characters_per_token:g} characters for each"
    if size.prompt + size.answers > limits.row_tokens:
        raise RowError(
            "too many tokens", f"about {size.prompt + size.answers:,} ({told}); a row has up to {limits.row_tokens:,}"
        )
    if limits.answer_tokens is not None and size.answers > limits.answer_tokens:
        raise RowError(
            "too many tokens",
            f"about {size.answers:,} in the completion ({told}); it has up to {limits.answer_tokens:,}",
        )
    return size


def _texts(row: Mapping[str, Any], family: Family) -> Size:
    if not family.pretraining:
        raise RowError(
            "a text",
            f"{TEXTS} is for continued pre-training, which no job on {family.label} offers; give {family.shape}",
        )
    _only(row, ("input",), "the row")
    return _within(Size(0, tokens([_text(row, "input", "the row", family)], family.limits)), family.limits)


def _pair(row: Mapping[str, Any], family: Family) -> Size:
    _only(row, ("prompt", "completion"), "the row")
    prompt, completion = (_text(row, name, "the row", family) for name in ("prompt", "completion"))
    return Size(tokens([prompt], family.limits), tokens([completion], family.limits))


def _conversation(row: Mapping[str, Any], family: Family) -> Size:
    parts = family.form == SCHEMA
    _only(row, ("schemaVersion", "system", "messages") if parts else ("system", "messages"), "the row")
    if parts:
        _schema(row, family)
        system = _system_parts(row, family)
    else:
        system = [_text(row, "system", "the row", family)] if "system" in row else []
    messages = _messages(row)
    said: dict[str, list[str]] = {"user": [], "assistant": []}
    images = videos = 0
    for number, message in enumerate(messages, 1):
        where = f"message {number}"
        role = _role(message, number)
        if not parts:
            said[role].append(_text(message, "content", where, family))
            continue
        texts, more_images, more_videos = _parts(message, where, role, family)
        said[role] += texts
        images, videos = images + more_images, videos + more_videos
    if len(messages) % 2:
        raise RowError("turns out of order", "the last message is the user's: the assistant's must answer it")
    _media_of_row(images, videos, family)
    limits = family.limits
    return Size(tokens([*system, *said["user"]], limits), tokens(said["assistant"], limits), images, videos)


def _schema(row: Mapping[str, Any], family: Family) -> None:
    """AWS's validators let it be absent. Nova's guide: "any string value"; Llama's validator: this one."""
    version = row.get("schemaVersion", SCHEMA)
    if family.name == "nova" and version is None:
        return
    if not isinstance(version, str):
        raise RowError("wrong type", f'schemaVersion is "{SCHEMA}", not {kind_of_value(version)}')
    if family.name != "nova" and version != SCHEMA:
        raise RowError("wrong value", f'schemaVersion is "{SCHEMA}", not {version[:40]!r}')


def _system_parts(row: Mapping[str, Any], family: Family) -> list[str]:
    system = row.get("system", [])
    if family.name == "nova" and system is None:
        return []
    if not isinstance(system, list):
        raise RowError("wrong type", f'system must be a list with one {{"text": "..."}}, not {kind_of_value(system)}')
    if family.name != "nova" and "system" in row and not system:
        raise RowError("empty content", "system is an empty list; leave it out where there is no system message")
    if len(system) > 1:
        raise RowError("several system messages", f"system has {len(system)} parts; one is taken")
    for part in system:
        if not isinstance(part, dict):
            raise RowError("wrong type", f'system must hold {{"text": "..."}}, not {kind_of_value(part)}')
        _only(part, ("text",), "system")
    return [_text(part, "text", "system", family) for part in system]


def _messages(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    if "messages" not in row:
        raise RowError("missing field", f"the row has no messages; it has {_named(row)}")
    messages = row["messages"]
    if not isinstance(messages, list):
        raise RowError("wrong type", f"messages must be a list, not {kind_of_value(messages)}")
    if not messages:
        raise RowError("no messages", "the list of messages is empty")
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict):
            raise RowError("wrong type", f"message {number} must be an object, not {kind_of_value(message)}")
        _only(message, ("role", "content"), f"message {number}")
    if len(messages) == 1 and messages[0].get("role") in ROLES:
        raise RowError("turns out of order", "one message alone: a user's and the assistant's answer are needed")
    return messages


def _role(message: Mapping[str, Any], number: int) -> str:
    role = message.get("role")
    if "role" not in message:
        raise RowError("missing field", f"message {number} has no role; allowed: {', '.join(ROLES)}")
    if role == "system":
        raise RowError("unknown role", f"message {number} is a system message; it stands beside messages, in system")
    if role not in ROLES:
        shown = repr(role)[:40] if isinstance(role, str) else kind_of_value(role)
        raise RowError("unknown role", f"message {number} has the role {shown}; allowed: {', '.join(ROLES)}")
    wanted = ROLES[(number + 1) % 2]
    if role != wanted:
        why = "the first is the user's" if number == 1 else "user and assistant take turns"
        raise RowError("turns out of order", f"message {number} is the {role}'s, not the {wanted}'s: {why}")
    return str(role)


def _parts(message: Mapping[str, Any], where: str, role: str, family: Family) -> tuple[list[str], int, int]:
    """The texts of a content, and how many images and videos it has."""
    if "content" not in message:
        raise RowError("missing field", f"{where} has no content")
    content = message["content"]
    if not isinstance(content, list):
        raise RowError(
            "wrong type", f'the content of {where} must be a list of {{"text": "..."}}, not {kind_of_value(content)}'
        )
    if not content:
        raise RowError("empty content", f"the content of {where} is an empty list")
    texts, images, videos = [], 0, 0
    for place, part in enumerate(content, 1):
        here = f"part {place} of {where}"
        if not isinstance(part, dict):
            raise RowError("wrong type", f'{here} must be {{"text": "..."}}, not {kind_of_value(part)}')
        kinds = [name for name in ("text", "image", "video") if name in part]
        _only(part, ("text", "image", "video"), here)
        if len(kinds) != 1:
            raise RowError(
                "wrong part", f"{here} holds {', '.join(kinds) or 'nothing'}; it is one of text, image, video"
            )
        if kinds == ["text"]:
            texts.append(_text(part, "text", here, family))
            continue
        _media(part[kinds[0]], kinds[0], here, role, family)
        images, videos = images + (kinds == ["image"]), videos + (kinds == ["video"])
    if role == "assistant" and not texts:
        raise RowError("empty content", f"{where} has no text, and it is the one to learn")
    return texts, images, videos


def _media(media: Any, what: str, where: str, role: str, family: Family) -> None:
    """Raises RowError for an image or video that the family's jobs don't take."""
    if role == "assistant":
        raise RowError("media in an answer", f"{where} is {_a(what)}: answers are texts")
    if not getattr(family.limits, f"{what}s"):
        raise RowError("media", f"{where} is {_a(what)}, which no job on {family.label} takes")
    if not isinstance(media, dict):
        raise RowError("wrong type", f"{where}: {what} must be an object, not {kind_of_value(media)}")
    _only(media, ("format", "source"), where)
    formats = IMAGES if what == "image" else VIDEOS
    form = media.get("format")
    if not isinstance(form, str) or form.lower() not in formats:
        raise RowError("wrong format", f"{where}: the format of {_a(what)} is one of {', '.join(formats)}")
    source = media.get("source")
    place = source.get("s3Location") if isinstance(source, dict) else None
    uri = place.get("uri") if isinstance(place, dict) else None
    if not isinstance(uri, str):
        raise RowError("wrong source", f'{where}: {what} needs "source": {{"s3Location": {{"uri": "s3://..."}}}}')
    if not re.fullmatch(r"s3://[\w\-/.]+", uri):
        raise RowError("wrong source", f"{where}: the uri must be s3://bucket/key of letters, digits and _-/.")


def _a(what: str) -> str:
    return "an image" if what == "image" else "a video"


def _media_of_row(images: int, videos: int, family: Family) -> None:
    if images and videos:
        raise RowError("mixed media", "the row has images and videos; a file has one of them")
    if images > family.limits.images or videos > family.limits.videos:
        most = f"{family.limits.images} images" if images else f"{family.limits.videos} video"
        raise RowError("too many media", f"the row has {images or videos}; {family.label} takes up to {most} in a row")


def _only(value: Mapping[str, Any], allowed: tuple[str, ...], where: str) -> None:
    """Raises RowError for a field that the form doesn't have, the first of them."""
    for name in value:
        if name not in allowed:
            like = next((each for each in allowed if each.lower() == name.strip().lower()), None)
            meant = f"; {like!r} is meant" if like else f"; allowed: {', '.join(allowed)}"
            raise RowError("unknown field", f"{where} has {name[:40]!r}{meant}")


def _text(value: Mapping[str, Any], name: str, where: str, family: Family) -> str:
    """The text under a name; raises RowError where it is none, blank, or holds a reserved word."""
    if name not in value:
        raise RowError("missing field", f"{where} has no {name}; it has {_named(value)}")
    text = value[name]
    if not isinstance(text, str):
        raise RowError("wrong type", f"{name} of {where} must be a text, not {kind_of_value(text)}")
    if not text or text.isspace():
        raise RowError("empty text", f"{name} of {where} is {'empty' if not text else 'blank'}")
    for word in family.limits.reserved:
        if word in text:
            raise RowError(
                "reserved word",
                f"{name} of {where} holds {word!r}, which ends a job on {family.label}; say it otherwise",
            )
    return text


def _named(value: Mapping[str, Any]) -> str:
    return ", ".join(repr(name[:40]) for name in list(value)[:12]) or "no fields"
