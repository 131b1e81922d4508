"""Chat templates that behave like those of well-known models, and a tokenizer that knows their tokens, for tests.

    tokenizer = templated("gemma")      # no system role, user and assistant must take turns, contents are trimmed

Each is as short as what it stands for allows: which messages it takes, what it writes around an answer, what it does to
earlier turns when later ones come.
"""

from __future__ import annotations

from typing import Any

from tests.support.tiny_model import CHAT_TEMPLATE, train_tokenizer

_GEMMA_TURNS = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ first if loop.first else '' }}"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
_QWEN_CALLS = (
    "{% for call in m.tool_calls %}\n<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}'
    "\n</tool_call>{% endfor %}"
)
_QWEN_TOOLS = (
    "{% if tools %}<|im_start|>system\nTools:{% for tool in tools %}\n{{ tool | tojson }}{% endfor %}"
    "<|im_end|>\n{% endif %}"
)
TEMPLATES: dict[str, str] = {
    "chatml": CHAT_TEMPLATE,
    "llama3": (
        "{% for m in messages %}{{ bos_token if loop.first }}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
        "{{ m.content | trim }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
    ),
    # Tools stand in the first user message, a call ends as an answer does.
    "llama3.1": (
        "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ 'ipython' if m.role == 'tool' else m.role }}"
        "<|end_header_id|>\n\n{% if m.tool_calls %}{% for call in m.tool_calls %}"
        '{"name": "{{ call.function.name }}", "parameters": {{ call.function.arguments | tojson }}}{% endfor %}'
        "{% else %}{% if tools and loop.first %}You may call:{% for tool in tools %}\n{{ tool | tojson(indent=4) }}"
        "{% endfor %}\n\n{% endif %}{{ m.content | trim }}{% endif %}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
    ),
    "gemma": "{{ bos_token }}{% set first = '' %}{% if messages[0].role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}" + _GEMMA_TURNS,
    # Folds the system message by itself.
    "gemma3": "{{ bos_token }}{% if messages[0].role == 'system' %}{% set first = messages[0].content ~ '\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set first = '' %}{% endif %}" + _GEMMA_TURNS,
    # No generation prompt, no system message, a blank before each answer.
    "mistral": (
        "{{ bos_token }}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}"
        "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}{{ eos_token }}{% endif %}"
        "{% endfor %}"
    ),
    # The system message within the first user message, by itself; no generation prompt.
    "llama2": (
        "{% if messages[0].role == 'system' %}{% set told = '<<SYS>>\\n' ~ messages[0].content ~ '\\n<</SYS>>\\n\\n' %}"
        "{% set messages = messages[1:] %}{% else %}{% set told = '' %}{% endif %}"
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}"
        "{% if m.role == 'user' %}{{ bos_token }}[INST] {{ told if loop.first else '' }}{{ m.content | trim }} [/INST]"
        "{% else %} {{ m.content | trim }} {{ eos_token }}{% endif %}{% endfor %}"
    ),
    # System text and tools stand at the last user message.
    "mistral3": (
        "{{ bos_token }}{% if messages[0].role == 'system' %}{% set told = messages[0].content %}"
        "{% set messages = messages[1:] %}{% endif %}{% set found = namespace(last=0) %}"
        "{% for m in messages %}{% if m.role == 'user' %}{% set found.last = loop.index0 %}{% endif %}{% endfor %}"
        "{% for m in messages %}{% if m.role == 'user' %}{% if tools and loop.index0 == found.last %}"
        "[AVAILABLE_TOOLS] {{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}"
        "[INST] {{ told ~ '\n\n' if told is defined and loop.index0 == found.last }}{{ m.content }}[/INST]"
        "{% elif m.role == 'tool' %}[TOOL_RESULTS] {{ m.content }}[/TOOL_RESULTS]"
        "{% elif m.tool_calls %}[TOOL_CALLS] [{% for call in m.tool_calls %}"
        '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}{% endfor %}]'
        "{{ eos_token }}{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
    ),
    "zephyr": (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    ),
    # Ends a conversation twice.
    "phi3": (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
    ),
    # An empty thinking block before the last answer; thoughts of earlier ones are dropped.
    "qwen3": _QWEN_TOOLS + "{% set found = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set found.last = loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}{% if m.role == 'assistant' %}"
    "{% set thought = '' %}{% set said = m.content %}{% if '</think>' in m.content %}"
    "{% set thought = m.content.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set said = m.content.split('</think>')[-1].lstrip('\n') %}{% endif %}<|im_start|>assistant\n"
    "{% if loop.index0 > found.last and (loop.last or thought) %}<think>\n{{ thought }}\n</think>\n\n{% endif %}"
    "{{ said }}" + _QWEN_CALLS + "<|im_end|>\n{% elif m.role == 'tool' %}<|im_start|>user\n<tool_response>\n"
    "{{ m.content }}\n</tool_response><|im_end|>\n{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    # A channel before each answer, and another end for the last answer than for those before it.
    "gpt-oss": (
        "{% for m in messages %}{% if m.role == 'assistant' %}<|start|>assistant{% if m.tool_calls %}"
        " to=functions.{{ m.tool_calls[0].function.name }}<|channel|>commentary json<|message|>"
        "{{ m.tool_calls[0].function.arguments | tojson }}<|call|>{% else %}<|channel|>final<|message|>{{ m.content }}"
        "{{ '<|return|>' if loop.last and not add_generation_prompt else '<|end|>' }}{% endif %}"
        "{% elif m.role == 'tool' %}<|start|>functions.x to=assistant<|message|>{{ m.content | tojson }}<|end|>"
        "{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}{% if tools and loop.first %}"
        "{% for tool in tools %}type {{ tool.function.name }};{% endfor %}{% endif %}<|end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
    ),
    # The generation prompt opens a thinking block, which the template doesn't write into answers.
    "deepseek": (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<|User|>{{ m.content }}"
        "{% elif m.role == 'assistant' %}<|Assistant|>{{ m.content.split('</think>')[-1] }}{{ eos_token }}"
        "{% else %}{{ m.content }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}"
    ),
    # No token ends a turn.
    "alpaca": (
        "{% for m in messages %}### {{ 'Response' if m.role == 'assistant' else 'Instruction' }}:\n{{ m.content }}\n\n"
        "{% endfor %}{% if add_generation_prompt %}### Response:\n{% endif %}"
    ),
}  # fmt: skip
_SPECIAL = (
    "</s>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<start_of_turn>", "<end_of_turn>", "<|end|>",
    "<|user|>", "<|assistant|>", "<|system|>", "<|start|>", "<|channel|>", "<|message|>", "<|return|>", "<|call|>",
    "<|User|>", "<|Assistant|>", "[INST]", "[/INST]", "[TOOL_CALLS]",
)  # fmt: skip
_PLAIN = ("<tool_call>", "</tool_call>", "<think>", "</think>")
"""Tokens of their own that are no special ones: text to the reader."""
_EOS = {"chatml": "<|im_end|>", "qwen3": "<|im_end|>", "llama3": "<|eot_id|>", "gpt-oss": "<|return|>"}


def templated(name: str) -> Any:
    """A small tokenizer with that template; its end-of-sequence token is `</s>` unless the model's is another."""
    tokenizer = train_tokenizer(["turn on the light in the kitchen"], chat_template=TEMPLATES[name])
    tokenizer.add_special_tokens({"additional_special_tokens": list(_SPECIAL)})
    tokenizer.add_tokens(list(_PLAIN))
    tokenizer.eos_token = _EOS.get(name, "</s>")
    return tokenizer
