"""The errors of the shared models.

ModelsError
└── InvalidDocument      a file that people write does not say what it must
"""


class ModelsError(Exception):
    """The root of the errors of this distribution."""


class InvalidDocument(ModelsError):
    """A site descriptor or capability document is not valid.

    Trying again does not help before the file is mended; the message names the file, the fields and what is allowed.
    """
