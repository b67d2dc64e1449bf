"""The JupyterHub side of DCDE Hub: login, accounts, spawning, broker and keeper."""
