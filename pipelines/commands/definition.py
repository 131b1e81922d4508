"""`fmops validate | definition | bootstrap | upsert`: from pipeline.yaml to a pipeline in the account."""

from __future__ import annotations

import click

from pipelines.commands.options import Target, target_options


@click.command()
@target_options
def validate(target: Target) -> None:
    """Check the configuration and every request, offline.

    Each step's request is held against the API's own model; no account, region or network is needed.
    """
    from pipelines.validate import validate as find_problems

    problems = find_problems(target.config)
    for problem in problems:
        click.echo(str(problem), err=True)
    if problems:
        click.echo(f"{len(problems)} problem{'s' * (len(problems) > 1)} found; nothing was sent anywhere.", err=True)
        raise click.exceptions.Exit(2)
    click.echo(f"{target.config_path} is valid: every request of the pipeline is one that the API accepts.")


@click.command()
@target_options
def definition(target: Target) -> None:
    """Print the pipeline definition (JSON), offline.

    The same tree gives the same bytes each time; nothing else goes to standard output.
    """
    from pipelines.finetuning import definition as build_definition

    click.echo(build_definition(target.config), nl=False)
    click.echo(f"Next: fmops upsert{target.flag}", err=True)


@click.command()
@target_options
def bootstrap(target: Target) -> None:
    """Create the buckets, the key and the roles.

    Deploys infrastructure/foundation.yaml; a second run changes nothing.
    """
    from pipelines.bootstrap import bootstrap as deploy_foundation

    click.echo(deploy_foundation(target.config, target.session))
    click.echo(f"Next: fmops upsert{target.flag}", err=True)


@click.command()
@target_options
def upsert(target: Target) -> None:
    """Upload the code; create or update the pipeline.

    The Lambda functions and the approval rule come with it (infrastructure/deployment.yaml).
    """
    from pipelines.publish import publish

    click.echo(str(publish(target.config, target.session)))
    click.echo(f"Next: fmops start{target.flag}", err=True)
