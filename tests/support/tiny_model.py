"""A real, really tiny Llama for tests: 2 layers of width 64, random weights, a byte-level BPE trained on your texts.

    directory = make_tiny_model(tmp_path / "base", ["turn on the light", '{"name": "HassTurnOn"}'])
    AutoTokenizer.from_pretrained(directory); AutoModelForCausalLM.from_pretrained(directory)

The directory has the Hugging Face layout (config.json, model.safetensors, generation_config.json, tokenizer.json,
tokenizer_config.json and a chat template). The same texts and seed give the same bytes. `eos` and `pad` are one token,
as in many real models, so that a test notices when padding hides the end of a completion.
"""

from __future__ import annotations

from pathlib import Path

END = "<|im_end|>"
START = "<|im_start|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tiny_model(
    directory: Path,
    texts: list[str],
    *,
    vocabulary: int = 512,
    hidden: int = 64,
    layers: int = 2,
    heads: int = 4,
    key_value_heads: int = 2,
    chat_template: str | None = CHAT_TEMPLATE,
    seed: int = 7,
) -> Path:
    """Write a model directory and return it.

    `vocabulary` is the most tokens the BPE may learn (it learns fewer from few texts); the model has about
    0.2 M parameters with the defaults. `chat_template=None` leaves the tokenizer without one.
    """
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(texts, vocabulary=vocabulary, chat_template=chat_template)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=hidden * 3,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.convert_tokens_to_ids(START),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def train_tokenizer(texts: list[str], *, vocabulary: int = 512, chat_template: str | None = CHAT_TEMPLATE):  # type: ignore[no-untyped-def]
    """A fast byte-level BPE tokenizer (every text can be encoded) learned from `texts`; eos = pad = `<|im_end|>`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=START, eos_token=END, pad_token=END, chat_template=chat_template
    )
