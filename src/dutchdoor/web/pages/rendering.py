"""Templates and static files of the pages.

`render` returns a page, independent of a framework. A page is plain HTML that works without a script. The only script
writes text, never markup. So the content security policy can forbid inline code and all Trusted Types policies (see
`headers.py`).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from dutchdoor.texts.languages import ENGLISH, Language
from dutchdoor.web.pages.api_reference import outline
from dutchdoor.web.pages.branding import PLAIN, Look
from dutchdoor.web.pages.overriding import page_templates

__all__ = ["render"]


def render(
    name: str,
    language: Language = ENGLISH,
    *,
    base: str = "",
    product: str = "dutchdoor",
    look: Look = PLAIN,
    key_cookie: str = "",
    **values: Any,
) -> bytes:
    """Render the template of this name as UTF-8, in a language, and with the `look` of the site. `base` is the base
    path of the API, `product` the name of the product, and `key_cookie` that of the cookie with the key of the browser.
    `docs` needs `document`, the OpenAPI document as a dict.

    Raises:
        jinja2.UndefinedError: a value is missing.
    """
    if name == "docs":
        values["api"] = outline(values["document"])
    values |= {
        "base": base,
        "product": product,
        "logo": look.logo,
        "has_sheet": look.has_sheet,
        "key_cookie": key_cookie,
    }
    values["asset"] = partial(look.asset, base)
    templates = page_templates(language, look.templates)
    return templates.get_template(f"{name}.html").render(values).encode()
