"""The federation's metadata: made and signed by its operator, and believed only with that signature."""

from __future__ import annotations

# mypy: allow-subclassing-any
import secrets
from typing import Any

from saml2 import class_name  # type: ignore[import-not-found,unused-ignore]
from saml2.config import Config, IdPConfig, SPConfig  # type: ignore[import-not-found,unused-ignore]
from saml2.mdstore import MetaDataFile  # type: ignore[import-not-found,unused-ignore]
from saml2.metadata import entities_descriptor, entity_descriptor  # type: ignore[import-not-found,unused-ignore]
from saml2.sigver import SignatureError, security_context  # type: ignore[import-not-found,unused-ignore]
from saml2.xmldsig import DIGEST_SHA256, SIG_RSA_SHA256  # type: ignore[import-not-found,unused-ignore]

from dcde_testbed.federation import saml
from dcde_testbed.federation.prepare import XMLSEC
from dcde_testbed.federation.settings import Settings


class SignedMetadata(MetaDataFile):
    """A metadata file that is refused when it is not signed by the given certificate's key.

    pysaml2's own class takes an unsigned file for a good one, and for a signed one lacks the means to verify it.
    """

    def __init__(self, attribute_converters: Any, filename: str, cert: str, **options: Any):
        super().__init__(attribute_converters, filename, cert=cert, **options)
        verifier = Config()
        verifier.xmlsec_binary = str(XMLSEC)
        self.security = security_context(verifier)

    def parse_and_check_signature(self, txt: bytes) -> bool:
        """Parse and verify; raises SignatureError."""
        self.parse(txt)
        whole = self.entities_descr
        if whole is None or whole.signature is None:
            raise SignatureError(f"{self.filename} is not signed as a whole")
        if not self.security.verify_signature(txt, node_name=class_name(whole), cert_file=self.cert):
            raise SignatureError(f"{self.filename} is not signed by the operator of the federation")
        return True


def signed_metadata(settings: Settings) -> str:
    """Describe all institutions and the proxy in one signed document. Needs the keys; raises pysaml2's errors."""
    entities = [
        entity_descriptor(IdPConfig().load(saml.institution(settings, institution, with_metadata=False)))
        for institution in settings.institutions
    ]
    entities.append(entity_descriptor(SPConfig().load(saml.proxy(settings, with_metadata=False))))
    operator = Config()
    operator.key_file = str(settings.key_file("operator"))
    operator.cert_file = str(settings.certificate_file("operator"))
    operator.xmlsec_binary = str(XMLSEC)
    _, document = entities_descriptor(
        entities,
        0,  # hours of validity: without an end
        "DCDE sample federation",
        f"_{secrets.token_hex(16)}",
        True,
        security_context(operator),
        sign_alg=SIG_RSA_SHA256,
        digest_alg=DIGEST_SHA256,
    )
    return str(document)
