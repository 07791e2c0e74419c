"""Templates in a language: `{{ _("...") }}`, `{% trans %}`, dates, numbers and durations."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import (
    ChoiceLoader,
    Environment,
    FileSystemLoader,
    PrefixLoader,
    StrictUndefined,
    pass_eval_context,
    select_autoescape,
)
from jinja2.nodes import EvalContext
from markupsafe import Markup, escape

from dutchdoor.texts.languages import Language

__all__ = ["OURS", "environment"]

OURS = "dutchdoor/"
"""What the name of a template begins with that is ours, whatever replaces it."""


def _groups(text: str) -> str:
    """Write a key in groups of four, for typing."""
    return " ".join(text[at : at + 4] for at in range(0, len(text), 4))


@cache
def environment(folder: Path, language: Language, replacing: Path | None = None) -> Environment:
    """Return the templates of a folder in one language. Each language has its own: a macro that is imported sees only
    what is global. Those in the folder `replacing` take the place of those with the same name.
    """
    ours = FileSystemLoader(folder)
    first = [] if replacing is None else [FileSystemLoader(replacing)]
    made = Environment(
        loader=ChoiceLoader([*first, ours, PrefixLoader({OURS.rstrip("/"): ours})]),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        extensions=["jinja2.ext.i18n"],
    )
    made.policies["ext.i18n.trimmed"] = True
    install: Any = made
    install.install_gettext_callables(language.text, language.plural, newstyle=True)

    # Unlike the one of Jinja, this escapes the text itself: it may be the message of an error, which quotes what
    # someone sent (stored script). Markup stands in `{% trans %}` alone.
    @pass_eval_context
    def translated(context: EvalContext, text: str, **values: object) -> str:
        found = language.text(text)
        if context.autoescape:
            return escape(found) % values if values else escape(found)
        return found % values if values else found

    made.globals |= {"_": translated, "lang": language.tag, "dir": language.direction}

    def when(at: float) -> Markup:
        exact = datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return Markup('<time datetime="{}">{}</time>').format(exact, language.when(at))

    made.filters |= {
        "groups": _groups,
        "when": when,
        "country": language.country,
        "device": language.device,
        "number": language.number,
        "duration": language.duration,
    }
    return made
