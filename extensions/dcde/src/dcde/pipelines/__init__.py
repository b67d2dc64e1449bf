"""Pipelines: what a run is made of, and the templates that people fill in to get one."""
