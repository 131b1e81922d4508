"""The author side of fmops: configuration, the pipeline, and the commands around it; runs on a laptop or in CI."""
