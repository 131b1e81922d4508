"""Writes the model directory, which becomes model.tar.gz. Runs in the GPU training container.

    config.json  model.safetensors  generation_config.json      the merged model (merge=true, or method=full)
    tokenizer.json  tokenizer_config.json  chat_template.jinja  always
    adapter/    adapter_model.safetensors  adapter_config.json  LoRA only
    code/       inference.py ...                                from the serving channel
    model.py  serving.properties                                what the LMI image reads, with the serving channel
    training_report.json                                        written last

Everything is written beside its place and moved there at the end, so that a job that fails leaves nothing that looks
like a model.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from common.failure import JobError
from common.prompts import end_tokens

DRAFT = ".writing"
REPORT = "training_report.json"


def check_space(model: Any, model_dir: Path, run_dir: Path, merge: bool) -> None:
    """Raise JobError if model and checkpoints cannot fit the disks they go to (bytes are an estimate)."""
    every = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    trained = sum(
        parameter.numel() * parameter.element_size() for parameter in model.parameters() if parameter.requires_grad
    )
    needs: dict[int, tuple[Path, int]] = {}
    # Weights and two moments each; two are kept, beside the best one, and a third is being written.
    for folder, size in ((model_dir, trained + every * merge), (run_dir, 4 * 3 * trained)):
        device = folder.stat().st_dev
        needs[device] = (folder, needs.get(device, (folder, 0))[1] + size)
    for folder, size in needs.values():
        free = shutil.disk_usage(folder).free
        if size > free:
            raise JobError(
                f"no disk space: {folder} has {free / 1e9:.1f} GB free and this job needs about {size / 1e9:.1f} GB; "
                "raise training.volume_gb" + (", or set merge=false" if merge else "")
            )


def save_model(
    model: Any, tokenizer: Any, model_dir: Path, serving: Path | None, report: dict[str, Any], merge: bool, dtype: Any
) -> None:
    """Write the model directory. `dtype` is the one that fully trained weights are stored in."""
    model_dir.mkdir(parents=True, exist_ok=True)
    draft = model_dir / DRAFT
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        _write(model, tokenizer, draft, serving, merge, dtype, report)
        (draft / REPORT).write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        _move(draft, model_dir)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write(
    model: Any, tokenizer: Any, draft: Path, serving: Path | None, merge: bool, dtype: Any, report: dict[str, Any]
) -> None:
    whole = model
    if hasattr(model, "peft_config"):
        model.save_pretrained(draft / "adapter", save_embedding_layers=False)
        (draft / "adapter" / "README.md").unlink(missing_ok=True)
        whole = model.merge_and_unload() if merge else None
    else:
        model.to(dtype)
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
