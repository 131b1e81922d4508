"""Knows the regions that SageMaker is in, from botocore's own data: no account, no network."""

from __future__ import annotations

import difflib


def region_problem(region: str) -> str | None:
    """What is wrong with a region, with the one that may have been meant; None for one that SageMaker is in."""
    # Not through a session, which would read the shell's profile: a definition doesn't depend on that.
    from botocore.loaders import Loader
    from botocore.regions import EndpointResolver

    resolver = EndpointResolver(Loader().load_data("endpoints"))
    known = {
        name
        for partition in resolver.get_available_partitions()
        for name in resolver.get_available_endpoints("api.sagemaker", partition)
    }
    if region in known:
        return None
    near = difflib.get_close_matches(region, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{region!r} is not a region that SageMaker is in{hint}"
