"""The outside world for demo and tests: institutions, proxy, registry and three sites behind firewalls."""
