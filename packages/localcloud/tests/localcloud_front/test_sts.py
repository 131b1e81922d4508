"""Who gets the keys of a role, for how long, and whose the keys of a user are."""

from __future__ import annotations

import datetime
import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud import LocalCloud, control
from localcloud.keys import Keys
from localcloud_front.conftest import Clients

ACCOUNT = "111111111111"
OTHER = "222222222222"


def trust(principal: Any, action: Any = "sts:AssumeRole", **more: Any) -> str:
    statement = {"Effect": "Allow", "Principal": principal, "Action": action, **more}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@pytest.fixture
def aws(running: control.Info) -> Iterator[Clients]:
    clients = Clients(running, account=ACCOUNT)
    yield clients
    clients.close()


def role(aws: Clients, principal: Any, action: Any = "sts:AssumeRole", **more: Any) -> str:
    conditions = {"Condition": more.pop("Condition")} if "Condition" in more else {}
    document = trust(principal, action, **conditions)
    made = aws("iam").create_role(RoleName=uuid.uuid4().hex[:12], AssumeRolePolicyDocument=document, **more)
    arn: str = made["Role"]["Arn"]
    return arn


def session(at: control.Info, found: dict[str, Any], account: str = ACCOUNT) -> Clients:
    key = found.get("Credentials") or found
    return Clients(at, account, key=(key["AccessKeyId"], key["SecretAccessKey"], key.get("SessionToken")))


@pytest.fixture
def user(running: control.Info, aws: Clients) -> Iterator[Clients]:
    """A user of the account, with an own key."""
    name = f"u{uuid.uuid4().hex[:8]}"
    aws("iam").create_user(UserName=name, Path="/team/")
    clients = session(running, aws("iam").create_access_key(UserName=name)["AccessKey"])
    yield clients
    clients.close()


def name_of(clients: Clients) -> str:
    return str(clients("sts").get_caller_identity()["Arn"]).rpartition("/")[2]


def refused(call: Callable[..., Any], **request: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as error:
        call(**request)
    found = error.value.response["Error"]
    return found["Code"], found["Message"]


def assumed(clients: Clients, arn: str, **more: Any) -> Any:
    return clients("sts").assume_role(RoleArn=arn, RoleSessionName="session", **more)


def denied(clients: Clients, arn: str, **more: Any) -> None:
    who = clients("sts").get_caller_identity()["Arn"]
    said = f"User: {who} is not authorized to perform: sts:AssumeRole on resource: {arn}"
    assert refused(clients("sts").assume_role, RoleArn=arn, RoleSessionName="s1", **more) == ("AccessDenied", said)


def test_a_role_that_is_not_there_is_not_assumed(aws: Clients, user: Clients) -> None:
    for clients in (aws, user):
        denied(clients, f"arn:aws:iam::{ACCOUNT}:role/absent")
        denied(clients, f"arn:aws:iam::{OTHER}:role/absent")
    made = role(aws, {"AWS": ACCOUNT}, Path="/team/")
    assert assumed(user, made)["AssumedRoleUser"]["Arn"].endswith(f"assumed-role/{made.rpartition('/')[2]}/session")
    denied(user, made.replace("/team/", "/"))
    assert (
        refused(aws("sts").assume_role, RoleArn="arn:aws:iam::x:user/u", RoleSessionName="ss")[0] == "ValidationError"
    )


def test_the_trust_policy_decides_who_assumes(running: control.Info, aws: Clients, user: Clients) -> None:
    me = str(user("sts").get_caller_identity()["Arn"])
    taken = [{"AWS": "*"}, "*", {"AWS": ACCOUNT}, {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, {"AWS": [me]}]
    for principal in taken:
        assumed(user, role(aws, principal))
    for principal in ({"Service": "sagemaker.amazonaws.com"}, {"AWS": OTHER}, {"Federated": "accounts.google.com"}):
        made = role(aws, principal)
        denied(user, made)
        denied(aws, made)
    denied(aws, role(aws, {"AWS": me}))
    denied(user, role(aws, {"AWS": ACCOUNT}, "sts:TagSession"))
    stranger = Clients(running, account=OTHER)
    denied(stranger, role(aws, {"AWS": ACCOUNT}))
    assert assumed(stranger, role(aws, {"AWS": OTHER}))["AssumedRoleUser"]["Arn"].split(":")[4] == ACCOUNT
    stranger.close()


def test_conditions_and_denials_count(aws: Clients, user: Clients) -> None:
    external = {"StringEquals": {"sts:ExternalId": "secret"}}
    made = role(aws, {"AWS": ACCOUNT}, Condition=external)
    denied(user, made)
    denied(user, made, ExternalId="other")
    assumed(user, made, ExternalId="secret")
    tags = [{"Key": "team", "Value": "a"}]
    said = refused(user("sts").assume_role, RoleArn=made, RoleSessionName="s1", ExternalId="secret", Tags=tags)
    assert said[0] == "AccessDenied"
    assert "sts:TagSession" in said[1]
    assumed(user, role(aws, {"AWS": ACCOUNT}, ["sts:AssumeRole", "sts:TagSession"]), Tags=tags)
    document = json.loads(trust("*"))
    document["Statement"].append({**document["Statement"][0], "Effect": "Deny", "Principal": {"AWS": ACCOUNT}})
    aws("iam").update_assume_role_policy(RoleName=made.rpartition("/")[2], PolicyDocument=json.dumps(document))
    denied(user, made)


def test_a_roles_session_assumes_what_trusts_the_role(running: control.Info, aws: Clients) -> None:
    first = role(aws, {"AWS": ACCOUNT})
    second = role(aws, {"AWS": first}, MaxSessionDuration=7200)
    held = session(running, assumed(aws, first))
    assumed(held, second)
    said = refused(held("sts").assume_role, RoleArn=second, RoleSessionName="ss", DurationSeconds=3601)
    assert said[0] == "ValidationError"
    assert "role chaining" in said[1]
    denied(held, role(aws, {"AWS": f"arn:aws:iam::{ACCOUNT}:role/{second.rpartition('/')[2]}"}))
    for call in (held("sts").get_session_token, held("sts").get_federation_token):
        request = {} if call.__name__ == "get_session_token" else {"Name": "someone"}
        assert refused(call, **request)[0] == "AccessDenied"
    held.close()


def test_a_jobs_key_needs_no_role_but_assumes_none_that_is_absent(running: control.Info, aws: Clients) -> None:
    made = Keys(running.secret).role(ACCOUNT, f"arn:aws:iam::{ACCOUNT}:role/never-made")
    job = Clients(running, key=(made.access_key, made.secret, made.token))
    assert name_of(job) == "SageMaker"
    denied(job, f"arn:aws:iam::{ACCOUNT}:role/never-made")
    assumed(job, role(aws, {"AWS": ACCOUNT}))
    job.close()


def test_sessions_last_as_long_as_the_role_allows(aws: Clients) -> None:
    made = role(aws, {"AWS": ACCOUNT}, MaxSessionDuration=7200)
    now = datetime.datetime.now(datetime.UTC)
    ends = assumed(aws, made, DurationSeconds=7200)["Credentials"]["Expiration"]
    assert datetime.timedelta(hours=1) < ends - now
    said = refused(aws("sts").assume_role, RoleArn=made, RoleSessionName="ss", DurationSeconds=7201)
    reason = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
    assert said == ("ValidationError", reason)
    said = refused(aws("sts").assume_role, RoleArn=made, RoleSessionName="ss", DurationSeconds=43201)
    assert said[0] == "ValidationError"
    own = aws("sts").get_session_token(DurationSeconds=129600)["Credentials"]["Expiration"]
    assert own - now < datetime.timedelta(hours=2)


@pytest.mark.parametrize("name", ["a b", "a/b", "x" * 65])
def test_names_of_sessions_are_what_the_model_says(aws: Clients, name: str) -> None:
    made = role(aws, {"AWS": ACCOUNT})
    code, said = refused(aws("sts").assume_role, RoleArn=made, RoleSessionName=name)
    assert (code, "at 'roleSessionName'" in said) == ("ValidationError", True)


def test_session_policies_are_policies(aws: Clients) -> None:
    made = role(aws, {"AWS": ACCOUNT})
    assert (
        refused(aws("sts").assume_role, RoleArn=made, RoleSessionName="ss", Policy="{}")[0] == "MalformedPolicyDocument"
    )
    absent = [{"arn": f"arn:aws:iam::{ACCOUNT}:policy/absent"}]
    assert (
        refused(aws("sts").assume_role, RoleArn=made, RoleSessionName="ss", PolicyArns=absent)[0] == "ValidationError"
    )
    assumed(aws, made, PolicyArns=[{"arn": "arn:aws:iam::aws:policy/AmazonSageMakerFullAccess"}])


def test_what_would_be_ignored_is_refused_by_name(aws: Clients) -> None:
    made = role(aws, {"AWS": ACCOUNT})
    for more in ({"SourceIdentity": "me"}, {"SerialNumber": f"arn:aws:iam::{ACCOUNT}:mfa/u", "TokenCode": "123456"}):
        code, said = refused(aws("sts").assume_role, RoleArn=made, RoleSessionName="ss", **more)
        assert (code, next(iter(more)) in said) == ("NotImplemented", True)
    token = {"Audience": ["a"], "SigningAlgorithm": "RS256"}
    assert refused(aws("sts").get_web_identity_token, **token)[0] == "NotImplemented"


def test_a_users_key_acts_in_the_users_account(running: control.Info, aws: Clients, user: Clients) -> None:
    name = name_of(user)
    arn = f"arn:aws:iam::{ACCOUNT}:user/team/{name}"
    found = user("sts").get_caller_identity()
    assert (found["Account"], found["Arn"]) == (ACCOUNT, arn)
    assert user("iam").get_user()["User"]["Arn"] == arn
    held = session(running, user("sts").get_session_token())
    assert held("iam").get_user()["User"]["Arn"] == arn
    held.close()
    group, bucket = f"g{name}", f"b-{name}"
    user("sagemaker").create_model_package_group(ModelPackageGroupName=group)
    user("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    assert aws("sagemaker").describe_model_package_group(ModelPackageGroupName=group)["ModelPackageGroupArn"]
    assert bucket in [one["Name"] for one in aws("s3").list_buckets()["Buckets"]]
    stranger = Clients(running, account=OTHER)
    assert bucket not in str(stranger("s3").list_buckets()["Buckets"])
    stranger.close()
    made = user("iam").create_access_key()["AccessKey"]
    keys = [key["AccessKeyId"] for key in user("iam").list_access_keys()["AccessKeyMetadata"]]
    assert (made["UserName"], made["AccessKeyId"] in keys, len(keys)) == (name, True, 2)
    assert aws("iam").list_access_keys(UserName=name)["AccessKeyMetadata"][0]["UserName"] == name


@pytest.mark.parametrize("end", ["Inactive", "deleted"])
def test_a_key_that_was_switched_off_is_refused(aws: Clients, user: Clients, end: str) -> None:
    name, key = name_of(user), user.key[0]
    if end == "deleted":
        aws("iam").delete_access_key(UserName=name, AccessKeyId=key)
    else:
        aws("iam").update_access_key(UserName=name, AccessKeyId=key, Status=end)
    assert refused(user("sts").get_caller_identity)[0] == "InvalidClientTokenId"
    assert refused(user("iam").get_user)[0] == "InvalidClientTokenId"
    assert refused(user("sagemaker").list_pipelines)[0] == "UnrecognizedClientException"
    assert refused(user("s3").list_buckets)[0] == "InvalidAccessKeyId"


def test_the_key_of_the_shell_that_started_it_is_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalCloud(tmp_path / "home") as cloud:
        owner = Clients(cloud, account=ACCOUNT)
        owner("iam").create_user(UserName="u")
        key = owner("iam").create_access_key(UserName="u")["AccessKey"]
        monkeypatch.setitem(os.environ, "AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        user = Clients(cloud, key=(key["AccessKeyId"], key["SecretAccessKey"], None))
        assert user("sts").get_caller_identity()["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/u"
        assert user("sts").get_access_key_info(AccessKeyId=key["AccessKeyId"])["Account"] == ACCOUNT
        user("sagemaker").create_model_package_group(ModelPackageGroupName="g")
        assert owner("sagemaker").list_model_package_groups()["ModelPackageGroupSummaryList"]
        for clients in (owner, user):
            clients.close()
