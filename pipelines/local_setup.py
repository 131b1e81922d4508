"""What a first run needs: the base model that comes through pip; and on this machine foundation, pipeline and rows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from configuration.errors import UserError
from configuration.names import base_model, input_data_uri
from pipelines import data, local_bedrock

if TYPE_CHECKING:
    import boto3

    from configuration.config import Config
    from pipelines.publish import Published


def prepare(config: Config, session: boto3.Session, home: Path, say: Callable[[str], None]) -> Published:
    """Deploy the foundation, upsert the pipeline, upload base model and example rows: what is there already stays."""
    from pipelines.bootstrap import bootstrap
    from pipelines.publish import publish

    say(str(bootstrap(config, session)))
    published = publish(config, session)
    say(str(published))
    upload_base_model(config, session, home, say)
    upload_example_data(config, session, home, say)
    return published


def upload_example_data(config: Config, session: boto3.Session, home: Path, say: Callable[[str], None]) -> None:
    """Put the data set that arrives through pip into raw/, unless something is there or pipeline.yaml names another."""
    uri = input_data_uri(config)
    if config.data.input_uri is not None or data.has_objects(session, uri):
        return
    from examples.home_assistant import write_dataset

    path = home / "examples" / "home_assistant.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_dataset(path)
    data.upload_file(config, session, path, f"{uri}{path.name}")
    say(f"{uri} was empty: the example data set is there now (home-assistant-intents: what people say -> tool call).")


def upload_base_model(config: Config, session: boto3.Session, home: Path, say: Callable[[str], None]) -> None:
    """Put the base model that arrives through pip where `model.base` points, unless something is there."""
    uri = base_model(config)
    if config.model.on_hub or data.has_objects(session, uri):
        return
    from examples.base_model import MODEL_NAME

    if not uri.endswith(f"/{MODEL_NAME}/"):
        say(
            f"There is no base model at {uri}. Upload a directory in Hugging Face layout there (aws s3 sync DIR "
            f"{uri}), or set model.base to {MODEL_NAME}, which arrives through pip."
        )
        return

    say(f"Converting the base model once for {uri} (about 25 s) ...")
    sent = data.upload_directory(config, session, converted(home), uri)
    say(f"Uploaded the base model: {sent} files to {uri}")


def stand_in_for_bedrock(config: Config, home: Path) -> None:
    """Let the base model that arrives through pip stand in for Bedrock's, unless another does. Raises UserError."""
    if not local_bedrock.has_another(home):
        local_bedrock.write(config, home, converted(home))


def converted(home: Path) -> Path:
    """The directory of the base model that arrives through pip, in Hugging Face layout; made once. Raises UserError."""
    # In a process of its own, so that torch's gigabyte is gone when it ends.
    script = data.ROOT / "examples" / "base_model.py"
    command = [sys.executable, str(script), "--cache", str(home / "base-model")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise UserError(result.stderr.strip().removeprefix("base_model: "))
    return Path(result.stdout.strip())
