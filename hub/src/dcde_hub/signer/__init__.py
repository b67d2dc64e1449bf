"""The signer: holds the certificate authorities' keys, one for each site, and signs what the broker has decided.

It is a process and an account of its own, apart from everything that speaks HTTP, and does the least there is to do.
"""
