"""The errors of the hub and its services.

HubError                     code, message, where, remedy, retry
├── RegistryUnavailable      the registry gives no usable answer now; trying again can help
├── EntryRefused             the registry's entry of one person cannot be used; an operator must mend it
├── AccountRefused           a unix account cannot be made or does not match the registry
├── ServerEnded              a person's server ended while it was starting; trying again can help
├── SecretRefused            a secret file is missing, empty or readable by others
├── SignerRefused            the signer does not sign this; trying again does not help
├── SignerUnavailable        the signer does not answer; trying again can help
├── HubUnavailable           the hub does not answer; trying again can help
├── Unauthenticated          the request carries no token that the hub knows
├── Forbidden                the person may not do this; says what is missing and where to get it
├── Unknown                  there is no such thing, or not for this person
└── Invalid                  the request does not say what it must
"""

from __future__ import annotations


class HubError(Exception):
    """The root of the errors of this distribution.

    Args:
        message: What failed, as a sentence.
        where: The thing it failed at, such as a file or a site.
        remedy: What the reader can do about it.
    """

    status = 500
    retry = False

    def __init__(self, message: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.remedy = remedy

    def to_json(self) -> dict[str, object]:
        """Return the error as the object that the services answer with."""
        return {
            "code": type(self).__name__,
            "message": self.message,
            "where": self.where,
            "remedy": self.remedy,
            "retry": self.retry,
        }


class RegistryUnavailable(HubError):
    """The registry gives no usable answer now."""

    status = 503
    retry = True


class EntryRefused(HubError):
    """The registry's entry of one person cannot be used before an operator has mended it."""

    status = 403


class AccountRefused(HubError):
    """A unix account cannot be made, or the existing one is not what the registry says."""

    status = 409


class ServerEnded(HubError):
    """A person's server ended while it was starting."""

    status = 500
    retry = True


class SecretRefused(HubError):
    """A secret file is missing, empty or readable by others."""


class SignerRefused(HubError):
    """The signer does not sign this."""

    status = 422


class SignerUnavailable(HubError):
    """The signer does not answer."""

    status = 503
    retry = True


class HubUnavailable(HubError):
    """The hub does not answer."""

    status = 503
    retry = True


class Forbidden(HubError):
    """The person may not do this."""

    status = 403


class Unauthenticated(HubError):
    """The request carries no token that the hub knows."""

    status = 401


class Unknown(HubError):
    """There is no such thing, or not for this person."""

    status = 404


class Invalid(HubError):
    """The request does not say what it must."""

    status = 422
