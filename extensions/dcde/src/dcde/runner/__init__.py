"""The runner: a person's one process that holds the links, writes the ledger and does the work; see `service`."""
