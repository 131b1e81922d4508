"""Decisions that the pipeline takes while it runs."""
