"""Durable jobs: one attempt of a step is one batch job at a site, followed by its key through everything."""
