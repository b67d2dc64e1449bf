"""The sample institutions and the people who can sign in at them.

The passwords are public on purpose: they are printed on the sign-in pages. Nothing here says who is a member of
DCDE; that is the registry's business (`registry.yaml`).
"""

from __future__ import annotations

from dataclasses import dataclass

SAMPLE_PASSWORD = "demo"  # noqa: S105  (public, see above)
SAMPLE_CODE = "123456"


@dataclass(frozen=True)
class Account:
    """One person's account at an institution; `affiliations` are eduPerson words such as `employee`."""

    login: str
    given_name: str
    family_name: str
    affiliations: tuple[str, ...] = ("member", "employee")

    @property
    def name(self) -> str:
        """Return the name as the institution displays it."""
        return f"{self.given_name} {self.family_name}"


@dataclass(frozen=True)
class Institution:
    """A sample institution; `key` is its host name before `.localhost`, `scope` the domain its people's identifiers
    end in.
    """

    key: str
    name: str
    scope: str
    accounts: tuple[Account, ...]

    def account(self, typed: str) -> Account | None:
        """Find the account for what a person typed: the login alone, or with the institution's own `@scope`."""
        login, _, domain = typed.strip().lower().partition("@")
        if domain not in ("", self.scope):
            return None
        return next((account for account in self.accounts if account.login == login), None)

    def principal_name(self, account: Account) -> str:
        """Return the eduPersonPrincipalName of an account."""
        return f"{account.login}@{self.scope}"


INSTITUTIONS = (
    Institution(
        "pnnl",
        "Pacific Northwest National Laboratory (sample)",
        "pnnl.example",
        (Account("drivers", "David", "Rivers"), Account("visitor", "Vera", "Visitor", ("affiliate",))),
    ),
    Institution(
        "bnl",
        "Brookhaven National Laboratory (sample)",
        "bnl.example",
        (Account("pnovak", "Petra", "Novak"), Account("admin", "Ada", "Operator")),
    ),
    Institution(
        "ornl",
        "Oak Ridge National Laboratory (sample)",
        "ornl.example",
        (Account("mtanaka", "Mei", "Tanaka"),),
    ),
)
