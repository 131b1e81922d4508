"""`fmops`, the command line. Every command is a few lines in `fmops/commands/`; heavy imports happen inside them.

Exit codes: 0 ok, 1 the work failed, 2 bad usage or configuration.
"""

from __future__ import annotations

import sys

import click

from configuration.errors import UserError
from fmops.commands import data, definition, demo, deployment, evaluate, local, registry, runs
from pipelines.terminal import say


class Ordered(click.Group):
    """Lists the commands in the order in which a user meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=Ordered, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="fmops")
def cli() -> None:
    """Fine-tune a language model as one SageMaker pipeline, on AWS or on this machine (--local)."""


for command in (
    demo.demo,
    definition.validate,
    definition.show_config,
    definition.definition,
    definition.bootstrap,
    definition.upsert,
    data.data,
    runs.start,
    runs.status,
    runs.logs,
    runs.stop,
    runs.report,
    registry.versions,
    registry.approve,
    registry.reject,
    registry.lineage,
    deployment.deploy,
    deployment.rollback,
    deployment.endpoint,
    deployment.invoke,
    deployment.undeploy,
    evaluate.evaluate,
    local.local,
):
    cli.add_command(command)


def main() -> None:
    """The console script: errors become one message and an exit code."""
    try:
        # Out of standalone mode click returns the exit code of an Exit instead of leaving the process.
        sys.exit(cli.main(standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.exceptions.Abort):
        say("Interrupted.", err=True)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(1)
    except UserError as error:
        say(f"fmops: {error}", err=True)
        sys.exit(error.exit_code)
    except Exception as error:
        say(f"fmops: {_explain(error)}", err=True)
        sys.exit(1)


def _explain(error: Exception) -> str:
    """One line for what AWS, the network or the disk answered."""
    from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError

    from pipelines.aws import describe_error

    if isinstance(error, ClientError):
        return describe_error(error)
    if isinstance(error, EndpointConnectionError):
        return f"{error} If it was localcloud, see `fmops local status`."
    if isinstance(error, BotoCoreError | OSError):
        return str(error)
    import os

    if os.environ.get("FMOPS_DEBUG"):
        raise error
    return f"unexpected {type(error).__name__}: {error}\nThis is a bug, please report it; FMOPS_DEBUG=1 shows where."


if __name__ == "__main__":
    main()
