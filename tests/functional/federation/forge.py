"""A dishonest institution: makes a SAML response by its own rules. Runs in the federation's environment.

Reads from standard input `{"settings", "issuer", "key", "principal", "in_response_to", "sign"}`: the institution that the
response names, the institution whose key signs it, whom it asserts. Writes the response, base64, to standard output.
"""

from __future__ import annotations

import base64
import json
import sys

from dcde_testbed.federation import saml
from dcde_testbed.federation.settings import Settings
from saml2.config import IdPConfig
from saml2.saml import NAMEID_FORMAT_TRANSIENT, NameID
from saml2.server import Server


def main() -> None:
    asked = json.load(sys.stdin)
    settings = Settings.from_json(asked["settings"])
    (issuer,) = (one for one in settings.institutions if one.key == asked["issuer"])
    configuration = saml.institution(settings, issuer)
    configuration["key_file"] = str(settings.key_file(asked["key"]))
    configuration["cert_file"] = str(settings.certificate_file(asked["key"]))
    response = Server(config=IdPConfig().load(configuration)).create_authn_response(
        {"eduPersonPrincipalName": [asked["principal"]], "mail": [asked["principal"]], "displayName": ["Somebody"]},
        in_response_to=asked["in_response_to"],
        destination=settings.proxy_assertion_url,
        sp_entity_id=settings.proxy_entity_id,
        name_id=NameID(format=NAMEID_FORMAT_TRANSIENT, text="somebody"),
        authn={"class_ref": saml.PASSWORD, "authn_auth": settings.entity_id(issuer)},
        sign_assertion=asked["sign"],
        sign_response=asked["sign"],
    )
    sys.stdout.write(base64.b64encode(str(response).encode()).decode())


if __name__ == "__main__":
    main()
