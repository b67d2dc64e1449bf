"""DCDE: compute and data at several laboratories, as one.

Importing this package is light: Parsl, globus-sdk and asyncssh load when first used.
"""

__version__ = "0.1.0"
