"""What the federation's pages and requests have in common: one look, escaping, security headers, bounded bodies.

Pages are built from `Markup` pieces; `text()` is the only way from a plain string to one. No page loads anything:
the style and the single script (which submits a SAML answer) are part of the page and named by digest in the
content security policy.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Callable, Iterable
from http.cookies import CookieError, SimpleCookie
from typing import Any, NewType
from urllib.parse import parse_qs

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]
Markup = NewType("Markup", str)

BODY_LIMIT = 256 * 1024  # bytes; a signed SAML response is about 10 kB

SELF, NOBODY = "'self'", "'none'"  # words of the content security policy

STYLE = """
:root { color-scheme: light dark; --accent: #0b57a4; --line: #6b7580; --note: #eef2f7; --text: #1b1f24;
  --page: #fff; --bad: #a3121f; }
@media (prefers-color-scheme: dark) {
  :root { --accent: #8ab8f0; --line: #8a94a0; --note: #232a33; --text: #e8ebef; --page: #15191e; --bad: #ff9d9d; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 34rem; margin: 0 auto; padding: 2.5rem 1.25rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 1rem; }
label { display: block; font-weight: 600; margin-top: 1rem; }
.hint { margin: 0; font-size: .9rem; }
input { width: 100%; font: inherit; color: inherit; background: transparent; padding: .6rem; margin-top: .25rem;
  border: 1px solid var(--line); border-radius: .3rem; }
button, .choice { font: inherit; font-weight: 600; padding: .65rem 1.1rem; border-radius: .3rem;
  border: 2px solid var(--accent); background: transparent; color: var(--accent); cursor: pointer; }
button.main { background: var(--accent); color: var(--page); }
.actions { display: flex; flex-wrap: wrap; gap: .75rem; margin-top: 1.5rem; }
ul.choices { list-style: none; padding: 0; }
.choice { display: block; margin-bottom: .75rem; text-decoration: none; }
.choice:hover, button:hover { text-decoration: underline; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.note { background: var(--note); border-radius: .3rem; padding: .75rem 1rem; margin: 1.5rem 0 0; }
.problem { border-left: .3rem solid var(--bad); background: var(--note); padding: .75rem 1rem; margin: 0 0 1rem; }
dl { margin: 1rem 0; } dt { font-weight: 600; margin-top: .5rem; } dd { margin: 0; overflow-wrap: anywhere; }
"""
SUBMIT_SCRIPT = "document.forms[0].submit();"


def text(value: object) -> Markup:
    """Escape a plain value for element content and for quoted attributes."""
    return Markup(html.escape(str(value), quote=True))


def join(pieces: Iterable[Markup]) -> Markup:
    """Put pieces of a page together."""
    return Markup("".join(pieces))


def hidden(name: str, value: str) -> Markup:
    """Return a hidden form field."""
    return Markup(f'<input type="hidden" name="{text(name)}" value="{text(value)}">')


def problem(message: str) -> Markup:
    """Return a message that screen readers speak at once; no message, no element."""
    return Markup(f'<p class="problem" role="alert">{text(message)}</p>') if message else Markup("")


def page(title: str, body: Markup) -> Markup:
    """Return a whole document with one main heading."""
    return Markup(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head>"
        f"<body><main><h1>{text(title)}</h1>{body}</main></body></html>\n"
    )


def _digest(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def headers(forms_may_reach: Iterable[str] = (SELF,), *, script: bool = False) -> list[tuple[str, str]]:
    """Return the headers of a page.

    `forms_may_reach` must name every origin a form of the page leads to, redirects included: browsers look at those
    too.
    """
    policy = [
        "default-src 'none'",
        f"style-src {_digest(STYLE)}",
        f"form-action {' '.join(forms_may_reach) or NOBODY}",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
    if script:
        policy.append(f"script-src {_digest(SUBMIT_SCRIPT)}")
    return [
        ("Content-Type", "text/html; charset=utf-8"),
        ("Content-Security-Policy", "; ".join(policy)),
        ("Cache-Control", "no-store"),
        ("Referrer-Policy", "same-origin"),
        ("X-Content-Type-Options", "nosniff"),
    ]


def answer(
    start_response: StartResponse, status: str, document: Markup, extra: list[tuple[str, str]] | None = None
) -> list[bytes]:
    """Send a page; `extra` replaces the usual headers."""
    start_response(status, extra if extra is not None else headers())
    return [document.encode()]


def refuse(start_response: StartResponse, status: str, title: str, message: str) -> list[bytes]:
    """Send a page that only says what is wrong and what to do."""
    return answer(start_response, status, page(title, problem(message)))


def query(environ: Environ) -> dict[str, str]:
    """Return the query parameters; of a repeated one the last."""
    return _fields(environ.get("QUERY_STRING", ""))


def form(environ: Environ) -> dict[str, str]:
    """Return the fields of a posted form; `bounded` has limited its size."""
    if not environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        return {}
    return _fields(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode("utf-8", "replace"))


def _fields(encoded: str) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(encoded, keep_blank_values=True, max_num_fields=50).items()}


def cookie(environ: Environ, name: str) -> str:
    """Return the value of a cookie, or an empty string."""
    try:
        found = SimpleCookie(environ.get("HTTP_COOKIE", "")).get(name)
    except CookieError:
        return ""
    return found.value if found else ""


def comes_from(environ: Environ, origin: str) -> bool:
    """Tell whether a request was made by a page of `origin`; programs that send no `Origin` pass (the ticket
    decides).
    """
    return bool(environ.get("HTTP_ORIGIN", origin) == origin)


def bounded(application: Application) -> Application:
    """Refuse bodies that are too large or whose size is not told, before anybody reads them."""

    def guard(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        length = environ.get("CONTENT_LENGTH") or "0"
        if not length.isdecimal() or int(length) > BODY_LIMIT or environ.get("HTTP_TRANSFER_ENCODING"):
            return refuse(
                start_response, "413 Content Too Large", "Too large", "The request is too large for this service."
            )
        return application(environ, start_response)

    return guard
