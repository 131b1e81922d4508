"""`fmops validate | config | definition | bootstrap | upsert`: from pipeline.yaml to a pipeline in the account."""

from __future__ import annotations

import difflib
from pathlib import Path

import click

from fmops.commands.options import target_options
from fmops.pipeline import Pipeline
from pipelines.terminal import say


@click.command()
@click.option("--model", type=click.Path(path_type=Path, exists=True), metavar="DIR_OR_CONFIG_JSON",
              help="The base model's directory (checked as in a run), or its config.json (memory alone).")  # fmt: skip
@target_options
def validate(pipeline: Pipeline, model: Path | None) -> None:
    """Check configuration, requests, memory and base model, offline.

    Each step's request is held against the API's own model; memory is estimated from the base model's config.json. With
    its directory, weights, tokens, template, layers and licence are looked at as Prepare will. No account, region,
    network or GPU is needed.
    """
    from pipelines.fit import NOT_CHECKED
    from pipelines.power import sentence

    for finding in pipeline.check_model(model):
        if finding.level != "refusal":
            say(f"base model: {finding}")
    found = pipeline.fit(model)
    for check in found:
        if check.fits:
            say(str(check))
    if not found and not pipeline.local:
        say(NOT_CHECKED)
    problems = pipeline.validate(model)
    for problem in problems:
        say(str(problem), err=True)
    if problems:
        say(f"{len(problems)} problem{'s' * (len(problems) > 1)} found; nothing was sent anywhere.", err=True)
        raise click.exceptions.Exit(2)
    say(sentence(pipeline.config))
    say(f"{pipeline.path} is valid: every request of the pipeline is one that the API accepts.")


@click.command()
@click.option("--check", "kept", type=click.Path(path_type=Path, dir_okay=False, exists=True), metavar="FILE",
              help="Compare with a definition kept in FILE; exit 1 if it differs.")  # fmt: skip
@target_options
def definition(pipeline: Pipeline, kept: Path | None) -> None:
    """Print the pipeline definition (JSON), offline.

    The same tree gives the same bytes each time; nothing else goes to standard output. With --check nothing is printed
    but what differs: for pull requests.
    """
    text = pipeline.definition()
    if kept is None:
        say(text, nl=False)
        say(f"Next: fmops upsert{pipeline.flag}", err=True)
        return
    before = kept.read_text("utf-8")
    if before == text:
        say(f"{kept} is the definition of {pipeline.path}.")
        return
    lines = difflib.unified_diff(before.splitlines(), text.splitlines(), str(kept), "now", lineterm="", n=1)
    for line in lines:
        say(line)
    say(f"{kept} is not what {pipeline.path} and the code give now; keep the new one with: "
               f"fmops definition{pipeline.flag} > {kept}", err=True)  # fmt: skip
    raise click.exceptions.Exit(1)


@click.command("config")
@click.option("--json", "as_json", is_flag=True, help="Print the values alone, as JSON.")
@target_options
def show_config(pipeline: Pipeline, as_json: bool) -> None:
    """Print every value, and where it comes from."""
    import json

    from configuration.dials import TABLE, configured

    loaded = pipeline.loaded
    if as_json:
        say(json.dumps(loaded.config.model_dump(), indent=2))
        return
    rows = []
    for dial in TABLE:
        value = configured(loaded.config, dial)
        shown = "null" if value is None else dial.text(value) or "[]"
        rows.append((dial.key, shown, loaded.sources.get(dial.key, "default")))
        if dial.key == "gate.slice_rows":
            for index, rule in enumerate(loaded.config.gate.rules):
                given = {name: value for name, value in rule.model_dump().items() if value is not None}
                shown = " ".join(f"{name}={value}" for name, value in given.items())
                key = f"gate.rules[{index}]"
                rows.append((key, shown, loaded.sources.get(key, "default")))
    key_width, value_width = (min(60, max(len(row[column]) for row in rows)) for column in (0, 1))
    for key, shown, source in rows:
        say(f"{key:{key_width}}  {shown:{value_width}}  {source}")
    environment = f"environment {loaded.environment}" if loaded.environment else "no environment"
    say(f"{pipeline.path}, {environment}", err=True)


@click.command()
@target_options
def bootstrap(pipeline: Pipeline) -> None:
    """Create the buckets, the key and the roles.

    Deploys infrastructure/foundation.yaml; a second run changes nothing.
    """
    say(pipeline.bootstrap())
    say(f"Next: fmops upsert{pipeline.flag}", err=True)


@click.command()
@target_options
def upsert(pipeline: Pipeline) -> None:
    """Upload the code; create or update the pipeline.

    The Lambda functions and the approval rule come with it (infrastructure/deployment.yaml); on this
    machine also the buckets, roles, base model and example rows.
    """
    published = pipeline.upsert()
    if not pipeline.local:
        say(str(published))
    say(f"Next: fmops start{pipeline.flag}", err=True)
