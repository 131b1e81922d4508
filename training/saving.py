"""Writes the model directory, which becomes model.tar.gz. Runs in the GPU training container.

    config.json  model.safetensors  generation_config.json      the merged model (merge=true, or method=full)
    tokenizer.json  tokenizer_config.json  chat_template.jinja  always
    adapter/    adapter_model.safetensors  adapter_config.json  lora and qlora; not with a composite's text part
    code/       inference.py ...                                from the serving channel
    model.py  serving.properties                                what the LMI image reads, with the serving channel
    training_report.json                                        written last

Everything is written beside its place and moved there at the end, so that a job that fails leaves nothing that looks
like a model.

An adapter that was trained on a 4-bit base is merged into the base as it was before, in the precision that it is served
in: that is what evaluation and endpoint put it on, too. What quantization changed is then no longer there, so that the
losses of training (on the 4-bit base) are slightly off; evaluation measures the model that is served.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adapters import size

from common.failure import JobError
from common.prompts import end_tokens

DRAFT = ".writing"
REPORT = "training_report.json"


def check_space(model: Any, model_dir: Path, run_dir: Path, merge: bool) -> None:
    """Raise JobError if model and checkpoints cannot fit the disks they go to (bytes are an estimate)."""
    every = sum(size(parameter) * _item(parameter) for parameter in model.parameters())
    trained = sum(size(parameter) * _item(parameter) for parameter in model.parameters() if parameter.requires_grad)
    needs: dict[int, tuple[Path, int]] = {}
    # Weights and two moments each; two are kept, beside the best one, and a third is being written.
    for folder, wanted in ((model_dir, trained + every * merge), (run_dir, 4 * 3 * trained)):
        device = folder.stat().st_dev
        needs[device] = (folder, needs.get(device, (folder, 0))[1] + wanted)
    for folder, wanted in needs.values():
        free = shutil.disk_usage(folder).free
        if wanted > free:
            raise JobError(
                f"no disk space: {folder} has {free / 1e9:.1f} GB free and this job needs about {wanted / 1e9:.1f} GB; "
                "raise training.volume_gb" + (", or set merge=false" if merge else "")
            )


def _item(parameter: Any) -> int:
    """Bytes of one weight as it is saved."""
    state = getattr(parameter, "quant_state", None)
    return int((parameter if state is None else state).dtype.itemsize)


def save_model(
    model: Any,
    tokenizer: Any,
    model_dir: Path,
    serving: Path | None,
    report: dict[str, Any],
    *,
    merge: bool,
    dtype: Any,
    base: Callable[[], Any] | None = None,
    keep_adapter: bool = True,
) -> None:
    """Write the model directory. `dtype` is the one that fully trained weights are stored in.

    `base` loads what adapters are merged into, where that isn't the model they were trained on.
    """
    model_dir.mkdir(parents=True, exist_ok=True)
    draft = model_dir / DRAFT
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        whole = (
            _write_adapter(model, draft / "adapter", merge, base) if hasattr(model, "peft_config") else model.to(dtype)
        )
        if not keep_adapter:
            shutil.rmtree(draft / "adapter", ignore_errors=True)
        _write(whole, tokenizer, draft, serving, report)
        (draft / REPORT).write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        _move(draft, model_dir)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_adapter(model: Any, folder: Path, merge: bool, base: Callable[[], Any] | None) -> Any:
    """Write the adapter; the model with it merged in, or None without `merge`."""
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    if not merge:
        return None
    if base is None:
        return model.merge_and_unload()
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fan_in_fan_out of GPT-2's layers, which a 4-bit base has not
        return PeftModel.from_pretrained(base(), str(folder)).merge_and_unload()


def _write(whole: Any, tokenizer: Any, draft: Path, serving: Path | None, report: dict[str, Any]) -> None:
    if whole is not None:
        # Generation must end at the token that answers were trained to end with.
        ends = end_tokens(whole, tokenizer)
        whole.generation_config.eos_token_id = ends if len(ends) > 1 else ends[0]
        whole.config.use_cache = True
        whole.save_pretrained(draft)
    tokenizer.save_pretrained(draft)
    if serving is not None and serving.is_dir():
        shutil.copytree(serving, draft / "code", ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        _write_for_lmi(draft, report)


def _write_for_lmi(draft: Path, report: dict[str, Any]) -> None:
    """The formatters where LMI looks for them, and how long prompt and answer may be together."""
    formatters = draft / "code" / "model.py"
    if formatters.is_file():
        shutil.copyfile(formatters, draft / "model.py")
    if report.get("context"):
        (draft / "serving.properties").write_text(f"option.max_model_len={report['context']}\n", encoding="utf-8")


def _move(draft: Path, model_dir: Path) -> None:
    # What makes a directory a model (config.json) and a finished one (the report) comes last.
    last = {"config.json": 1, REPORT: 2}
    for path in sorted(draft.iterdir(), key=lambda entry: (last.get(entry.name, 0), entry.name)):
        target = model_dir / path.name
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        os.replace(path, target)
