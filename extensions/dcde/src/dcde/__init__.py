"""The DCDE library, the runner and the dcde command."""
