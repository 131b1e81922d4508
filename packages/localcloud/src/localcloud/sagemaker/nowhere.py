"""What AWS's own project templates ask for and go on without: images and projects, of which there are none here.

They catch the refusal of one that isn't there, and take the public image, or no project's tags. An operation that is
not offered would stop them.
"""

from __future__ import annotations

from localcloud.context import Context, Handler, Request, Response
from localcloud.errors import not_found


def _image(ctx: Context, request: Request) -> Response:
    raise not_found(f"No Image with the name {request['ImageName']} was found.")


def _version(ctx: Context, request: Request) -> Response:
    raise not_found(f"No ImageVersion of {request['ImageName']} was found.")


def _project(ctx: Context, request: Request) -> Response:
    raise not_found(f"Project {request['ProjectName']} does not exist.")


OPERATIONS: dict[str, Handler] = {
    "DescribeImage": _image,
    "DescribeImageVersion": _version,
    "DescribeProject": _project,
}
