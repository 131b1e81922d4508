"""The commands of `fmops`, one file for each part of the work."""
