"""One way to reach AWS, and the same way to reach localcloud: a boto3 session.

Local mode sets the environment variables that boto3, the SageMaker SDK and the AWS CLI read (AWS_ENDPOINT_URL and
credentials whose access key is the account id); nothing else in the author side knows which of the two it talks to.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configuration.errors import UserError
from pipelines import local_bedrock

_ELSEWHERE = frozenset(
    {
        *("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"),
        *("AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT"),
    }
)
"""Variables that would lead a client away from localcloud."""

if TYPE_CHECKING:
    import boto3

    from configuration.config import Config


def home(config_path: Path) -> Path:
    """Where localcloud keeps its state: $FMOPS_HOME, else `.fmops/` beside pipeline.yaml."""
    return Path(os.environ.get("FMOPS_HOME") or config_path.resolve().parent / ".fmops").resolve()


def use_local(config: Config, config_path: Path) -> str:
    """Start localcloud unless it runs, and point this process at it; returns its URL."""
    tracking = config.training.mlflow_tracking_uri or ""
    if tracking.startswith("arn:"):
        raise UserError(
            f"training.mlflow_tracking_uri: {tracking!r} is in AWS, and localcloud has no MLflow; set it to null or to "
            "a server of your own (http://127.0.0.1:5000) in environments.local"
        )
    try:
        from localcloud import control
        from localcloud.home import ControlError
    except ImportError as error:
        raise UserError(
            f"--local needs the packages of the extra 'local' ({error.name} is missing): pip install -e '.[local]'"
        ) from None
    local_bedrock.point_at(home(config_path))
    try:
        info = control.up(home(config_path))
    except ControlError as error:
        raise UserError(str(error)) from None
    for name in [name for name in os.environ if name in _ELSEWHERE or name.startswith("AWS_ENDPOINT_URL_")]:
        del os.environ[name]
    os.environ.update(control.client_environment(info.url, info.secret, config.aws.account_id, config.aws.region))
    return str(info.url)


def connect(config: Config, config_path: Path, local: bool) -> boto3.Session:
    """A session for the configured account and region; a different account is refused before anything is sent to it."""
    if local:
        return local_session(use_local(config, config_path), config.aws.region)
    import boto3

    session = boto3.Session(region_name=config.aws.region)
    _check_account(session, config)
    return session


def local_session(url: str, region: str) -> boto3.Session:
    """A session all of whose clients go to localcloud, whatever variables, profiles and the SDK name beside it.

    It fails closed: a client that would go elsewhere is an error, and no proxy sees what is sent.
    """
    import boto3
    from botocore.config import Config as ClientConfig

    class LocalSession(boto3.Session):  # type: ignore[misc]
        def client(self, service_name: str, *arguments: Any, **options: Any) -> Any:
            given = options.pop("config", None)
            direct = ClientConfig(proxies={})
            # The SDK names AWS's own STS for its account, so that no variable leads it here: this does.
            options |= {"endpoint_url": url, "config": given.merge(direct) if given is not None else direct}
            # By position come region, version, TLS, verification and the endpoint.
            made = super().client(service_name, *arguments[:4], **options)
            if made.meta.endpoint_url != url:
                raise UserError(
                    f"--local sends nothing to {made.meta.endpoint_url}: {service_name} has to go to {url}. "
                    "Look for endpoint_url in ~/.aws/config and for AWS_ENDPOINT_URL variables."
                )
            return made

    return LocalSession(region_name=region)


def _check_account(session: boto3.Session, config: Config) -> None:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        account = session.client("sts").get_caller_identity()["Account"]
    except (BotoCoreError, ClientError) as error:
        raise UserError(
            f"AWS did not accept the credentials of this shell: {error}\n"
            "Sign in (aws sso login, or set AWS_PROFILE), or add --local to run on this machine without an account."
        ) from None
    if account != config.aws.account_id:
        raise UserError(
            f"These credentials belong to account {account}, but aws.account_id in pipeline.yaml is "
            f"{config.aws.account_id}.\nChange one of them, or add --local to run on this machine."
        )


@functools.lru_cache(maxsize=32)
def client(session: boto3.Session, service: str) -> Any:
    """The session's client of a service, made once: making one costs more than most of its calls."""
    return session.client(service)


def s3_parts(uri: str) -> tuple[str, str]:
    """`s3://bucket/a/b` -> ("bucket", "a/b")."""
    if not uri.startswith("s3://") or len(uri) <= len("s3://"):
        raise UserError(f"{uri!r} is not an S3 URI: s3://bucket/key is expected.", exit_code=2)
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def describe_error(error: Any) -> str:
    """A botocore ClientError in one line, with the operation that was refused."""
    details = error.response.get("Error", {})
    return f"{error.operation_name} was refused: {details.get('Code')}: {details.get('Message')}"
