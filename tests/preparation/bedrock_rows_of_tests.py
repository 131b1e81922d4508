"""Rows for Bedrock's jobs, good and malformed, each with words of the reason that it must be given."""

from __future__ import annotations

import json
from typing import Any

Case = tuple[bytes, str]


def line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def asked(content: Any = "hi") -> dict[str, Any]:
    return {"role": "user", "content": content}


def answered(content: Any = "hello") -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def parts(*texts: str) -> list[dict[str, str]]:
    return [{"text": text} for text in texts]


SCHEMA = {"schemaVersion": "bedrock-conversation-2024"}
TURNS = [asked(parts("hi")), answered(parts("hello"))]
URI = {"s3Location": {"uri": "s3://bucket/a-b_c/d.png", "bucketOwner": "123456789012"}}
IMAGE = {"image": {"format": "png", "source": URI}}
VIDEO = {"video": {"format": "mp4", "source": URI}}
CALLS = [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]

LINES: dict[str, Case] = {
    "nothing": (b"\n", "empty line"),
    "blanks": (b"  \t \r\n", "empty line"),
    "Latin-1": (b'{"prompt": "caf\xe9", "completion": "b"}', "not UTF-8: byte 16"),
    "UTF-16": ("\ufeff{}".encode("utf-16-le"), "UTF-16; save it as UTF-8"),
    "a byte order mark": (b'\xef\xbb\xbf{"prompt": "a", "completion": "b"}', "byte order mark"),
    "a lone surrogate": (rb'{"prompt": "\ud83d", "completion": "b"}', "half of a pair"),
    "a trailing comma in an object": (b'{"prompt": "a", "completion": "b",}', "trailing comma at column 35"),
    "a trailing comma in a list": (b'{"messages": [1, 2, ]}', "trailing comma"),
    "a comma behind the object": (b'{"prompt": "a", "completion": "b"},', "a comma behind the object"),
    "two objects": (b'{"prompt": "a"} {"prompt": "b"}', "second object on the line"),
    "text behind the object": (b'{"prompt": "a"} end', "text behind the value"),
    "an array of rows": (b"[", "seems to be one JSON array"),
    "the last line of one": (b"]", "no JSON at all, it begins with ']'"),
    "a pretty-printed object": (b"{", "continued in the next line"),
    "a line of one": (b'    "prompt": "a",', "text behind the value"),
    "an object that is cut off": (b'{"prompt": "a", "completion": "b', "cut off"),
    "one that is cut off behind a colon": (b'{"prompt":', "cut off"),
    "single quotes": (b"{'prompt': 'a'}", "single quotes at column 2"),
    "a name without quotes": (b'{prompt: "a"}', "name without double quotes"),
    "a missing comma": (b'{"prompt": "a" "completion": "b"}', "',' delimiter"),
    "a missing colon": (b'{"prompt" "a"}', "':' delimiter"),
    "a raw line break in a text": (b'{"prompt": "a\tb"}', "control character in a text"),
    "a backslash alone": (rb'{"prompt": "C:\data"}', "begins no escape"),
    "Python's None": (b'{"prompt": None}', "Python's None"),
    "Python's True": (b'{"prompt": True}', "Python's True"),
    "a comment": (b'{"prompt": "a", // the question\n', "a comment"),
    "NaN": (b'{"prompt": NaN}', "NaN is no JSON"),
    "a name twice": (b'{"prompt": "a", "prompt": "b"}', "has 'prompt' twice"),
    "a CSV line": (b"prompt,completion", "no JSON at all"),
    "a word": (b"hello", "no JSON at all"),
    "too deep": (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
    "an endless number": (b'{"a": ' + b"9" * 5000 + b"}", "invalid JSON"),
    "a list": (b'[{"prompt": "a"}]', "not an object: .* a list"),
    "a text": (b'"hello"', "not an object: .* a text"),
    "a number": (b"7", "not an object: .* a number"),
    "null": (b"null", "not an object: .* null"),
    "true": (b"true", "not an object: .* true/false"),
}
"""Lines that are no row of any form."""

OTHERS: dict[str, Case] = {
    "ShareGPT": (
        line({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}),
        "another form: ShareGPT",
    ),
    "Alpaca": (line({"instruction": "a", "input": "", "output": "b"}), "another form: Alpaca"),
    "question and answer": (line({"question": "a", "answer": "b"}), "under other names"),
    "a preference": (line({"prompt": "a", "chosen": "b", "rejected": "c"}), "another form: a preference"),
    "OpenAI": (
        line({"messages": [{"role": "system", "content": "s"}, asked(), answered()]}),
        "another form: messages with the system message among them",
    ),
    "a text": (line({"text": "Once"}), "another form: a text"),
}


def of_text(row: dict[str, Any], place: list[Any], name: str) -> dict[str, Case]:
    """What can be wrong with one text of a row, by name."""

    def put(value: Any) -> bytes:
        copy = json.loads(json.dumps(row))
        inside = copy
        for step in place[:-1]:
            inside = inside[step]
        inside[place[-1]] = value
        return line(copy)

    last = place[-1]
    return {
        f"{name} null": (put(None), f"{last} of .* must be a text, not null"),
        f"{name} number": (put(7), f"{last} of .* must be a text, not a number"),
        f"{name} true": (put(True), f"{last} of .* must be a text, not true/false"),
        f"{name} object": (put({"a": 1}), f"{last} of .* must be a text, not an object"),
        f"{name} empty": (put(""), f"empty text: {last} of .* is empty"),
        f"{name} blank": (put(" \n\u00a0"), f"empty text: {last} of .* is blank"),
    }


def _pair(most: int) -> dict[str, Case]:
    good = {"prompt": "a", "completion": "b"}
    return {
        **of_text(good, ["prompt"], "prompt"),
        **of_text(good, ["completion"], "completion"),
        "a list of texts": (line({**good, "prompt": ["a"]}), "prompt of the row must be a text, not a list"),
        "no prompt": (line({"completion": "b"}), "missing field: the row has no prompt"),
        "no completion": (line({"prompt": "a"}), "missing field: the row has no completion"),
        "nothing": (line({}), "missing field: .* no fields"),
        "another name": (line({"prompt": "a", "completions": "b"}), "unknown field: the row has 'completions'"),
        "capitals": (line({"Prompt": "a", "completion": "b"}), "has 'Prompt'; 'prompt' is meant"),
        "blanks around a name": (line({"prompt ": "a", "completion": "b"}), "'prompt' is meant"),
        "a field more": (line({**good, "slice": "x"}), "unknown field: the row has 'slice'"),
        "a system message": (line({**good, "system": "s"}), "unknown field: the row has 'system'"),
        "a long prompt": (line({**good, "prompt": "word " * (most * 6 // 5 + 1)}), "too many tokens"),
        "both together": (line({"prompt": "a" * most * 3, "completion": "b" * (most * 3 + 1)}), "too many tokens"),
    }


def _of_messages(good: dict[str, Any]) -> dict[str, Case]:
    """What can be wrong with the list of messages, whatever a content is."""
    user, assistant = good["messages"]

    def told(*messages: Any) -> bytes:
        return line({**good, "messages": list(messages)})

    more = {"role": "user", "content": user["content"], "name": "Ann"}
    calling = {**assistant, "tool_calls": CALLS}
    return {
        "no messages": (line({key: value for key, value in good.items() if key != "messages"} | {"x": 1}), "'x'"),
        "messages absent": (line({**{k: v for k, v in good.items() if k != "messages"}}), "no messages"),
        "messages null": (line({**good, "messages": None}), "messages must be a list, not null"),
        "messages a text": (line({**good, "messages": "[]"}), "messages must be a list, not a text"),
        "messages an object": (line({**good, "messages": user}), "messages must be a list, not an object"),
        "messages empty": (told(), "list of messages is empty"),
        "a message that is a text": (told(user, "hello"), "message 2 must be an object, not a text"),
        "a message that is null": (told(None, assistant), "message 1 must be an object, not null"),
        "a question alone": (told(user), "one message alone"),
        "an answer alone": (told(assistant), "one message alone"),
        "the assistant first": (told(assistant, user), "message 1 is the assistant's"),
        "the user last": (told(user, assistant, user), "the last message is the user's"),
        "two questions": (told(user, user, assistant), "message 2 is the user's, not the assistant's"),
        "two answers": (told(user, assistant, assistant), "message 3 is the assistant's, not the user's"),
        "a late system message": (told(user, {**user, "role": "system"}, assistant), "message 2 is a system message"),
        "a tool": (told(user, {**user, "role": "tool"}), "message 2 has the role 'tool'"),
        "a role in capitals": (told({**user, "role": "User"}, assistant), "role 'User'; allowed: user, assistant"),
        "a role of another kind": (told({**user, "role": "human"}, assistant), "role 'human'"),
        "a role that is null": (told({**user, "role": None}, assistant), "role null"),
        "a role that is a list": (told({**user, "role": ["user"]}, assistant), "role a list"),
        "no role": (told({"content": user["content"]}, assistant), "message 1 has no role"),
        "no content": (told({"role": "user"}, assistant), "message 1 has no content"),
        "a name": (told(more, assistant), "message 1 has 'name'"),
        "a call": (told(user, calling), "message 2 has 'tool_calls'"),
        "from and value": (told({"from": "human", "value": "a"}, assistant), "message 1 has 'from'"),
        "a field more": (line({**good, "slice": "x"}), "the row has 'slice'"),
        "tools": (line({**good, "tools": []}), "the row has 'tools'"),
        "Messages": (line({"Messages": good["messages"]}), "'messages' is meant"),
    }


def _conversation(images: bool) -> dict[str, Case]:
    """Malformed rows of bedrock-conversation-2024."""
    good = {**SCHEMA, "system": parts("s"), "messages": TURNS}

    def told(*contents: Any) -> bytes:
        return line({**SCHEMA, "messages": [{"role": role, "content": content} for role, content in
                                            zip(("user", "assistant"), contents, strict=True)]})  # fmt: skip

    hello, hi = parts("hello"), parts("hi")
    found = {
        **of_text(good, ["system", 0, "text"], "system"),
        **of_text(good, ["messages", 0, "content", 0, "text"], "user"),
        **of_text(good, ["messages", 1, "content", 0, "text"], "assistant"),
        **_of_messages({**SCHEMA, "messages": TURNS}),
        "messages as texts": (line({"messages": [asked(), answered()]}), "another form: messages"),
        "one content a text": (told("hi", hello), "content of message 1 must be a list"),
        "a content that is null": (told(None, hello), "content of message 1 must be a list .* not null"),
        "a content that is an object": (told({"text": "hi"}, hello), "must be a list .* not an object"),
        "an empty content": (told([], hello), "empty content"),
        "an answer without a part": (told(hi, []), "empty content"),
        "a part that is a text": (told(["hi"], hello), "part 1 of message 1 must be .* not a text"),
        "a part without anything": (told([{}], hello), "wrong part: part 1 of message 1 holds nothing"),
        "OpenAI's part": (told([{"type": "text", "text": "hi"}], hello), "part 1 of message 1 has 'type'"),
        "a document": (told([{"document": {}}], hello), "has 'document'"),
        "a tool's use": (told(hi, [{"toolUse": {}}]), "has 'toolUse'"),
        "two in one part": (told([{"text": "hi", **IMAGE}], hello), "holds text, image"),
        "the system a text": (line({**good, "system": "s"}), "system must be a list"),
        "the system an object": (line({**good, "system": {"text": "s"}}), "system must be a list"),
        "two system messages": (line({**good, "system": parts("a", "b")}), "system has 2 parts"),
        "a system message that is a text": (line({**good, "system": ["s"]}), "system must hold .* not a text"),
        "a system message with a role": (line({**good, "system": [{"role": "system"}]}), "system has 'role'"),
        "a version that is a number": (line({**good, "schemaVersion": 2024}), "schemaVersion is .* not a number"),
        "an image in an answer": (told(hi, [IMAGE]), "media in an answer"),
        "prompt and completion": (line({"prompt": "a", "completion": "b"}), "another form: prompt-completion"),
        "a text to go on with": (line({"input": "Once"}), "continued pre-training"),
        "too long": (told(parts("word " * 40_000), hello), "too many tokens"),
        "too long in Chinese": (told(parts("字" * 32_001), hello), "too many tokens: about 32,0"),
    }
    if not images:
        return found | {
            "an image": (told([IMAGE], hello), "which no job on"),
            "a video": (told([VIDEO], hello), "which no job on"),
        }

    def image(**changed: Any) -> bytes:
        return told([{"text": "hi"}, {"image": {**IMAGE["image"], **changed}}], hello)

    return found | {
        "an image that is a text": (told([{"image": "a.png"}], hello), "image must be an object, not a text"),
        "an image of another format": (image(format="bmp"), "one of jpeg, png, gif, webp"),
        "an image without a format": (told([{"image": {"source": URI}}], hello), "wrong format"),
        "an image's bytes": (image(source={"bytes": "aGk="}), "image needs .*s3Location"),
        "an image by HTTP": (image(source={"s3Location": {"uri": "https://x/y.png"}}), "s3://bucket/key"),
        "an image with a blank in its name": (image(source={"s3Location": {"uri": "s3://b/a b.png"}}), "s3://bucket"),
        "an image with more": (image(width=3), "has 'width'"),
        "eleven images": (told([IMAGE] * 11, hello), "up to 10 images"),
        "two videos": (told([VIDEO] * 2, hello), "up to 1 video"),
        "images and videos": (told([IMAGE, VIDEO], hello), "mixed media"),
        "a video of another format": (told([{"video": {"format": "avi", "source": URI}}], hello), "mov, mkv, mp4"),
    }


def _nova(images: bool) -> dict[str, Case]:
    def told(system: str, user: str, assistant: str) -> bytes:
        return line({**SCHEMA, "system": parts(system), "messages": [asked(parts(user)), answered(parts(assistant))]})

    words = ["System:", "SYSTEM:", "User:", "USER:", "Bot:", "BOT:", "Assistant:", "ASSISTANT:", "Thought:", "[EOS]",
             "<image>", "<video>"]  # fmt: skip
    return {
        **_conversation(images),
        **{f"{word} in a prompt": (told("s", f"a {word} b", "c"), f"reserved word: .*{word[1:-1]}") for word in words},
        "User: in the system message": (told("User: x", "a", "b"), "reserved word: text of system"),
        "Bot: in an answer": (told("s", "a", "Bot: x"), "reserved word: text of part 1 of message 2"),
    }


def _claude() -> dict[str, Case]:
    good = {"system": "s", "messages": [asked(), answered()]}
    texts = {"messages": [asked(), answered()]}
    return {
        **of_text(good, ["system"], "system"),
        **of_text(good, ["messages", 0, "content"], "user"),
        **of_text(good, ["messages", 1, "content"], "assistant"),
        **_of_messages(texts),
        "Bedrock's conversation": (line({**SCHEMA, "messages": TURNS}), "another form: bedrock-conversation-2024"),
        "one content of parts": (line({"messages": [asked(), answered(parts("b"))]}), "content of message 2"),
        "a system of parts": (line({**texts, "system": parts("s")}), "system of the row must be a text, not a list"),
        "a schema": (line({**texts, **SCHEMA}), "unknown field: the row has 'schemaVersion'"),
        "Human: in a prompt": (line({"messages": [asked("a\n\nHuman: b"), answered()]}), "reserved word: .*Human"),
        "Human: in an answer": (line({"messages": [asked(), answered("a\nHuman:")]}), "content of message 2"),
        "Assistant: in the system": (line({**texts, "system": "a\nAssistant:"}), "reserved word: system of the row"),
        "prompt and completion": (line({"prompt": "a", "completion": "b"}), "another form: prompt-completion"),
        "a text to go on with": (line({"input": "Once"}), "continued pre-training"),
        "too long": (line({"messages": [asked("word " * 40_000), answered()]}), "too many tokens"),
    }


_MESSAGES_TO_PAIRS: dict[str, Case] = {
    "messages": (line({"messages": [asked(), answered()]}), "another form: messages"),
    "Bedrock's conversation": (line({**SCHEMA, "messages": TURNS}), "another form: bedrock-conversation-2024"),
}
_LLAMA_SCHEMA: dict[str, Case] = {
    "an empty system": (line({**SCHEMA, "system": [], "messages": TURNS}), "system is an empty list"),
    "a system that is null": (line({**SCHEMA, "system": None, "messages": TURNS}), "system must be a list .* not null"),
    "another schema": (line({"schemaVersion": "2023", "messages": TURNS}), "not '2023'"),
    "null for a schema": (line({"schemaVersion": None, "messages": TURNS}), "not null"),
}
LLAMA_3_2 = "meta.llama3-2-3b-instruct-v1:0:128k"
NOVA_MICRO = "amazon.nova-micro-v1:0:128k"
TEXT_OF_TITAN: dict[str, Case] = {
    **{f"input {name}": case for name, case in of_text({"input": "a"}, ["input"], "text").items()},
    "a text that is too long": (line({"input": "word " * 6_000}), "too many tokens"),
}

BAD: dict[str, dict[str, Case]] = {
    "nova": {**LINES, **OTHERS, **_nova(images=True)},
    NOVA_MICRO: {**LINES, **OTHERS, **_nova(images=False)},
    "claude": {**LINES, **OTHERS, **_claude()},
    "llama": {**LINES, **OTHERS, **_pair(16_000), **_MESSAGES_TO_PAIRS,
              "a text to go on with": (line({"input": "Once"}), "continued pre-training")},
    LLAMA_3_2: {**LINES, **OTHERS, **_conversation(images=False), **_LLAMA_SCHEMA},
    "titan": {**LINES, **OTHERS, **_pair(4_096), **_MESSAGES_TO_PAIRS, **TEXT_OF_TITAN},
    "cohere": {**LINES, **OTHERS, **_pair(4_096), **_MESSAGES_TO_PAIRS,
               "a text to go on with": (line({"input": "Once"}), "continued pre-training"),
               "a long completion": (line({"prompt": "a", "completion": "b" * (2_048 * 6 + 1)}), "in the completion")},
}  # fmt: skip

_PAIRS: dict[str, bytes] = {
    "plain": line({"prompt": "a", "completion": " b"}),
    "escapes": json.dumps({"prompt": 'ä 🙂 "\\', "completion": "\u2028\t\nx"}).encode(),
    "a line break of Windows": line({"prompt": "a", "completion": "b"}) + b"\r\n",
    "blanks around": b'  { "completion" : "b", "prompt":"a" } \n',
    "a text that looks like JSON": line({"prompt": "{'a': 1,}", "completion": '[{"b": NaN,}]'}),
    "words that others reserve": line({"prompt": "User: a\n\nHuman: b", "completion": "Assistant: [EOS]"}),
    "a backslash before u": line({"prompt": "\\ud83d", "completion": "b"}),
    "as long as it may be": line({"prompt": "a" * 4_096 * 3, "completion": "b" * 2_048 * 6}),
    "a NUL": line({"prompt": "\u0000", "completion": "b"}),
}
_TWICE = [*TURNS, asked(parts("3")), answered(parts("4", "5"))]
_CONVERSATIONS: dict[str, bytes] = {
    "plain": line({**SCHEMA, "messages": TURNS}),
    "with a system message": line({**SCHEMA, "system": parts("s"), "messages": TURNS}),
    "no schema": line({"messages": TURNS}),
    "two turns, two parts": line({**SCHEMA, "messages": _TWICE}),
    "any order of names": line({"messages": [{"content": parts("a"), "role": "user"}, TURNS[1]], **SCHEMA}),
    "words that come near": line({**SCHEMA, "messages": [asked(parts("User : system: user: bot")), TURNS[1]]}),
    "as long as it may be": line({**SCHEMA, "messages": [asked(parts("a" * 35_000)), TURNS[1]]}),
}
GOOD: dict[str, dict[str, bytes]] = {
    "nova": {
        **_CONVERSATIONS,
        "no system message": line({**SCHEMA, "system": [], "messages": TURNS}),
        "null for one": line({"schemaVersion": None, "system": None, "messages": TURNS}),
        "any schema": line({"schemaVersion": "mine", "messages": TURNS}),
        "ten images": line({**SCHEMA, "messages": [asked([{"text": "a"}, *[IMAGE] * 10]), TURNS[1]]}),
        "an image alone": line({**SCHEMA, "messages": [asked([IMAGE]), TURNS[1]]}),
        "a video": line({**SCHEMA, "messages": [asked([VIDEO, {"text": "a"}]), TURNS[1]]}),
        "90,000 characters": line({**SCHEMA, "messages": [asked(parts("a" * 90_000)), TURNS[1]]}),
    },
    NOVA_MICRO: _CONVERSATIONS,
    "claude": {
        "plain": line({"messages": [asked(), answered()]}),
        "with a system message": line({"system": "s", "messages": [asked(), answered()]}),
        "two turns": line({"messages": [asked(), answered(), asked("3"), answered("4")], "system": "Human: x"}),
        "words that come near": line({"messages": [asked("Human: a Assistant: b"), answered("User: [EOS]")]}),
        "90,000 characters": line({"messages": [asked("a" * 90_000), answered()]}),
    },
    "llama": {**_PAIRS, "long": line({"prompt": "a" * 90_000, "completion": "b" * 6_000})},
    LLAMA_3_2: _CONVERSATIONS,
    "titan": {**_PAIRS, "a text": line({"input": "Once upon a time"})},
    "cohere": _PAIRS,
}  # fmt: skip
