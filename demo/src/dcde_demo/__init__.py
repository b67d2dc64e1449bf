"""DCDE Hub in the testbed: what the hub is told about the world it runs in. The only place that knows both sides."""
