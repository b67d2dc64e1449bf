"""What is where: the ledger, and the movement of files between sites."""
