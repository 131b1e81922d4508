"""The command line: every key of the contract, ranges, and `--help` where nothing is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.bundles import bundled

CONTRACT = [
    "method", "task", "dpo_beta", "start_from", "epochs", "max_steps", "learning_rate", "lr_scheduler",
    "warmup_ratio", "weight_decay", "batch_size", "gradient_accumulation_steps", "micro_batch_tokens",
    "activation_checkpointing", "max_seq_length", "learn", "long_rows", "lora_rank", "lora_alpha", "lora_dropout",
    "lora_variant", "lora_target_modules", "early_stopping_patience", "evaluations_per_run", "checkpoints_per_run",
    "merge", "precision", "sharding", "seed", "model_id", "checkpoint_dir", "tensorboard_dir",
]  # fmt: skip


def test_keys_are_those_of_the_contract() -> None:
    from train import build_parser

    keys = [action.dest for action in build_parser()._actions if action.dest != "help"]
    assert keys == CONTRACT


def test_strings_become_values() -> None:
    from hyperparameters import parse

    numbers = ["--epochs", "1.5", "--batch_size", "4.0", "--learning_rate", "1e-3"]
    chosen = parse([*numbers, "--merge", "FALSE", "--lora_target_modules", "q_proj,v_proj"])
    assert (chosen.epochs, chosen.batch_size, chosen.merge, chosen.learning_rate) == (1.5, 4, False, 0.001)
    assert chosen.lora_target_modules == "q_proj,v_proj"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--epoch", "3"], "unknown hyperparameter --epoch 3; allowed: method, task,"),
        (["--epochs", "-1"], "-1.0 is refused; allowed: a number from 0.01 to 100"),
        (["--epochs", "nan"], "nan is refused; allowed: a number"),
        (["--batch_size", "2.5"], "'2.5' is refused; allowed: a whole number from 1 to 4096"),
        (["--batch_size", "inf"], "'inf' is refused; allowed: a whole number"),
        (["--method", "lisa"], "'lisa' is refused; allowed: lora, qlora or full"),
        (["--merge", "yes"], "'yes' is refused; allowed: true or false"),
        (["--lora_target_modules", " , "], "' , ' is refused; allowed: all-linear, or module names"),
        (["--early_stopping_patience", "2", "--evaluations_per_run", "0"], "evaluations_per_run: 0 is refused"),
        (["--seed"], "expected one argument"),
    ],
)
def test_bad_values_are_named_with_what_is_allowed(arguments: list[str], said: str) -> None:
    from hyperparameters import parse

    from common.failure import JobError

    with pytest.raises(JobError) as caught:
        parse(arguments)
    assert said in str(caught.value)


def test_help_needs_only_the_standard_library(tmp_path: Path) -> None:
    code = bundled("training")
    program = (
        f"import sys, runpy; sys.path.insert(0, {str(code)!r}); sys.argv = ['train.py', '--help']\n"
        f"runpy.run_path({str(code / 'train.py')!r}, run_name='__main__')"
    )
    bare = [sys.executable, "-I", "-S", "-c", program]
    done = subprocess.run(bare, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert all(f"--{key} VALUE" in done.stdout for key in CONTRACT)
