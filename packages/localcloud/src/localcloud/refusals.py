"""What AWS answers to a request whose signature it doesn't take: code, status and words differ by the wire format.

https://docs.aws.amazon.com/IAM/latest/APIReference/CommonErrors.html (query),
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html (S3),
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html (EC2). JSON services add `Exception` and
answer with 400 (https://github.com/disneystreaming/smithy4s/issues/1568,
https://github.com/aws/amazon-sagemaker-operator-for-k8s/issues/99), REST services with 403.
"""

from __future__ import annotations

from localcloud.errors import AwsError

_CALCULATED = (
    "The request signature we calculated does not match the signature you provided. "
    "Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
)
_MESSAGES = {
    "missing": "Request is missing Authentication Token",
    "unknown-key": "The security token included in the request is invalid.",
    "token": "The security token included in the request is invalid.",
    "expired-token": "The security token included in the request is expired",
    "mismatch": _CALCULATED,
    "hash": _CALCULATED,
}
"""Of all services but S3."""
KINDS: dict[str, tuple[str, tuple[str, int, str]]] = {
    # kind: (code without S3, (code, status and message of S3; an empty message is the refusal's own))
    "missing": ("MissingAuthenticationToken", ("AccessDenied", 403, "Access Denied")),
    "unknown-key": (
        "InvalidClientTokenId",
        ("InvalidAccessKeyId", 403, "The AWS Access Key Id you provided does not exist in our records."),
    ),
    "token": (
        "InvalidClientTokenId",
        ("InvalidToken", 400, "The provided token is malformed or otherwise invalid."),
    ),
    "expired-token": ("ExpiredToken", ("ExpiredToken", 400, "The provided token has expired.")),
    "incomplete": ("IncompleteSignature", ("AuthorizationHeaderMalformed", 400, "")),
    "query": ("IncompleteSignature", ("AuthorizationQueryParametersError", 400, "")),
    "unsupported": (
        "IncompleteSignature",
        (
            "InvalidRequest",
            400,
            "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.",
        ),
    ),
    "date": ("SignatureDoesNotMatch", ("AuthorizationHeaderMalformed", 400, "")),
    "expired": ("SignatureDoesNotMatch", ("AccessDenied", 403, "Request has expired")),
    "skewed": (
        "SignatureDoesNotMatch",
        ("RequestTimeTooSkewed", 403, "The difference between the request time and the current time is too large."),
    ),
    "mismatch": ("SignatureDoesNotMatch", ("SignatureDoesNotMatch", 403, _CALCULATED.split(" Consult")[0])),
    "unsigned-headers": ("SignatureDoesNotMatch", ("AccessDenied", 403, "")),
    "missing-hash": ("SignatureDoesNotMatch", ("InvalidRequest", 400, "")),
    "bad-hash": ("SignatureDoesNotMatch", ("InvalidArgument", 400, "")),
    "hash": (
        "SignatureDoesNotMatch",
        (
            "XAmzContentSHA256Mismatch",
            400,
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        ),
    ),
}
_JSON = {
    "InvalidClientTokenId": "UnrecognizedClientException",
    "SignatureDoesNotMatch": "InvalidSignatureException",
}
"""The others are the query protocol's codes with `Exception`."""


def refusal(kind: str, service: str, protocol: str, reason: str = "") -> AwsError:
    """The refusal of a kind, as a service of that wire protocol words it; `reason` where AWS tells one."""
    code, (s3_code, s3_status, s3_message) = KINDS[kind]
    words = reason or _MESSAGES.get(kind) or _CALCULATED
    if service == "s3":
        return AwsError(s3_code, s3_message or words, s3_status)
    if protocol == "ec2":
        if kind in ("skewed", "expired"):
            return AwsError("RequestExpired", "Request has expired.")
        return AwsError("AuthFailure", "AWS was not able to validate the provided access credentials", 401)
    if protocol in ("query", "rest-xml"):
        return AwsError(code, words, 400 if code == "IncompleteSignature" else 403)
    status = 403 if protocol.startswith("rest") and code != "IncompleteSignature" else 400
    return AwsError(_JSON.get(code, f"{code}Exception"), words, status)


def wrong_body() -> AwsError:
    """S3's answer to a body that isn't the one whose hash was signed."""
    return refusal("hash", "s3", "rest-xml")
