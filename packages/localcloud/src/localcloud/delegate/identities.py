"""IAM: what AWS refuses is refused before MiniStack hears of it, its lists come in pages, keys say who asks."""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape

from localcloud.delegate import identity_pages, identity_rules, simulation
from localcloud.delegate.managed_policies import ManagedPolicies, unknown
from localcloud.delegate.policy_grammar import check_permissions, check_trust
from localcloud.delegate.sessions import Sessions, checked
from localcloud.errors import AwsError
from localcloud.hooks import identities, scope
from localcloud.hooks.identities import Asked, Next, Reply
from localcloud.hooks.patches import Patches
from localcloud.protocol import operation_model

Request = dict[str, Any]
_PERMISSIONS = frozenset({"CreatePolicy", "CreatePolicyVersion", "PutRolePolicy", "PutUserPolicy", "PutGroupPolicy"})
_OF_CALLER = frozenset(
    {
        *("GetUser", "CreateAccessKey", "ListAccessKeys", "DeleteAccessKey", "UpdateAccessKey"),
        *("ListMFADevices", "ListSSHPublicKeys", "ListSigningCertificates"),
    }
)
"""Operations that are about the caller where they name no user."""


def install(patches: Patches) -> ManagedPolicies:
    """Stand before MiniStack's IAM and STS; what AWS's managed policies are."""
    managed = ManagedPolicies()
    identities.accounts_alone_are_root(patches)
    identities.answer_with(patches, "iam", Identities(managed).answer)
    identities.answer_with(patches, "sts", Sessions(managed).answer)
    return managed


_IGNORED = {
    "CreateServiceLinkedRole": ("CustomSuffix",),
    "GenerateServiceLastAccessedDetails": ("Granularity",),
    "CreateSAMLProvider": ("AssertionEncryptionMode", "AddPrivateKey"),
    "UpdateSAMLProvider": ("AssertionEncryptionMode", "AddPrivateKey", "RemovePrivateKey"),
    "EnableMFADevice": ("AuthenticationCode1",),
    "ResyncMFADevice": ("AuthenticationCode1",),
}
"""Members that MiniStack takes and does nothing with, by operation."""


class Identities:
    """Checks what MiniStack's IAM is asked, and cuts what it answers. On the event loop."""

    def __init__(self, managed: ManagedPolicies) -> None:
        self._managed = managed

    async def answer(self, asked: Asked, after: Next) -> Reply:
        """The answer to a request; AwsError as IAM refuses."""
        self._name_caller(asked)
        request = checked("iam", asked)
        self._managed.load()
        self._check(asked.operation, request)
        if "Description" in request:
            asked.form["Description"] = [kept_text(request["Description"])]
        if asked.operation in simulation.OPERATIONS:
            reply = simulation.simulate(asked, request, self._managed)
        else:
            reply = await after()
        model = operation_model("iam", asked.operation)
        if reply[0] == 200 and identity_pages.is_paged(model):
            return reply[0], reply[1], identity_pages.page(model, request, reply[2], identity_rules.is_asked_for)
        return reply

    def _name_caller(self, asked: Asked) -> None:
        if asked.operation not in _OF_CALLER or "UserName" in asked.form:
            return
        arn = asked.caller["userArn"]
        if ":user/" in arn:
            asked.form["UserName"] = [arn.rpartition("/")[2]]
        elif ":assumed-role/" in arn or ":federated-user/" in arn:
            raise AwsError("ValidationError", "Must specify userName when calling with non-User credentials")
        elif asked.operation == "CreateAccessKey":
            raise AwsError("NotImplemented", "localcloud makes no access keys of an account itself: name a user", 501)

    def _check(self, operation: str, request: Request) -> None:
        if any(sign in request.get("Path", "") for sign in "&<>"):
            raise AwsError("NotImplemented", "localcloud does not implement & < > in the paths of IAM", 501)
        for member in _IGNORED.get(operation, ()):
            if member in request:
                raise AwsError("NotImplemented", f"localcloud does not implement {member} of iam:{operation}", 501)
        identity_rules.check_names(operation, request)
        if operation in _PERMISSIONS:
            check_permissions(request["PolicyDocument"])
        elif operation in ("CreateRole", "UpdateAssumeRolePolicy"):
            check_trust(request.get("AssumeRolePolicyDocument") or request["PolicyDocument"], exists)
        identity_rules.check_policies(operation, request)
        identity_rules.check_sizes(operation, request)
        identity_rules.check_numbers(operation, request)
        identity_rules.check_deleted(operation, request)
        if operation == "GetPolicyVersion":
            record = identities.policy(request["PolicyArn"]) or {}
            if request["VersionId"] in record["Versions"] and not record["Versions"][request["VersionId"]]["Document"]:
                raise unknown(request["PolicyArn"])
        elif operation == "GetAccountAuthorizationDetails":
            for kind in ("user", "role", "group"):
                for record in identities.kept(kind).values():
                    for arn in record.get("AttachedPolicies", []):
                        self._managed.document(arn)


def kept_text(text: str) -> str:
    """How MiniStack has to keep a text: it writes it into its XML as it is."""
    return escape(text)


def exists(arn: str) -> bool:
    """Whether a principal of a trust policy is there, in the caller's account: of others nothing is known."""
    parts = arn.split(":", 5)
    if len(parts) < 6 or parts[2] != "iam" or parts[4] != scope.here()[0]:
        return True
    kind, _, path = parts[5].partition("/")
    found = identities.kept(kind).get(path.rpartition("/")[2]) if kind in ("user", "role") else None
    return kind not in ("user", "role") or (found is not None and found["Arn"] == arn)
