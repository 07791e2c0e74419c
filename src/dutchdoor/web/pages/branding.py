"""How pages and mails look: accent, logo, corners, letters, and templates in place of ours. Checked at the start.

    auth = Auth(product="The shop", branding=Branding(accent="#0b6e4f", logo="shop.svg"))

An accent that people cannot read is refused (WCAG 2.2, 1.4.3), with the nearest one that they can. All of it goes into
a sheet of its own, `/assets/brand.css`, so that the content security policy still forbids styles in a page.
"""

from __future__ import annotations

import colorsys
import re
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path

from msgspec import Struct

from dutchdoor.errors import Misconfigured
from dutchdoor.mail.letters import Accent
from dutchdoor.model.spelling import Spelt
from dutchdoor.web.pages.files import STATIC, StaticFile, static
from dutchdoor.web.pages.overriding import check_templates

__all__ = ["PLAIN", "UNBRANDED", "Branding", "Look"]

CONTRAST = 4.5
"""What text needs on its background (WCAG 2.2, 1.4.3, level AA)."""
_SHARPEST, _ROUNDEST = 0, 32
_FONT = re.compile(r"[A-Za-z0-9 ,'\"-]{1,200}")
_COLOUR = re.compile(r"#[0-9a-f]{6}")
_LOGOS = {".svg": "image/svg+xml", ".png": "image/png"}
# No scripts: one on the page where people type passwords could read them.
_ASSETS = {
    **_LOGOS,
    ".css": "text/css; charset=utf-8",
    ".ico": "image/x-icon",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
}
_LOGO_AT_MOST, _ASSET_AT_MOST = 64 * 1024, 1024 * 1024

Colour = tuple[float, float, float]
"""Red, green and blue, each from 0 to 1."""


class Branding(Struct, metaclass=Spelt, frozen=True, kw_only=True):
    """How pages look. What is "" or None is as we have it. The name is `Auth(product=...)`."""

    accent: str = ""
    """The colour of links and buttons in the light theme, such as "#0b6e4f"."""
    accent_dark: str = ""
    """The same in the dark theme. If not given, it is `accent`, lighter as far as it must be."""
    logo: str | PathLike[str] = ""
    """An SVG or PNG file of 64 KiB at most, shown 28 pixels high beside the name."""
    radius: int | None = None
    """How round the corners of cards are, in pixels from 0 to 32. Buttons and fields have two thirds of it."""
    font: str = ""
    """The fonts of all text, the first that is there: "Georgia, serif"."""
    templates: str | PathLike[str] = ""
    """A folder with templates in place of ours, by the same names, and below `assets/` with what they show."""

    def __post_init__(self) -> None:
        """Raises `Misconfigured` for a value of another type."""
        for name in ("accent", "accent_dark", "font"):
            if not isinstance(getattr(self, name), str):
                raise Misconfigured(f"{name} is a text, and not {getattr(self, name)!r}.")
        for name in ("logo", "templates"):
            if not isinstance(getattr(self, name), str | PathLike):
                raise Misconfigured(f"{name} is a path, and not {getattr(self, name)!r}.")
        if not (self.radius is None or type(self.radius) is int):
            raise Misconfigured(f"radius is a whole number, and not {self.radius!r}.")


class Look:
    """A branding that was checked and read: what a page needs to know, and the files that it links.

    Raises:
        Misconfigured: a colour has too little contrast or is none, a file is not there, too large or of no known kind,
            a template replaces no page or uses what that page does not have.
    """

    def __init__(self, branding: Branding) -> None:
        if not isinstance(branding, Branding):
            raise Misconfigured(f"branding is {branding!r}. Give Branding(accent=..., logo=...).")
        for name in ("accent", "accent_dark"):
            given = getattr(branding, name).lower()
            if given and not _COLOUR.fullmatch(given):
                raise Misconfigured(f"{name} is {getattr(branding, name)!r}. Give a colour such as #0b6e4f.")
        if branding.accent_dark and not branding.accent:
            raise Misconfigured("accent_dark is given without accent. Give both, or accent alone.")
        self.accent = _accent(branding) if branding.accent else None
        self.templates = _folder(branding.templates) if branding.templates else None
        files: dict[str, StaticFile] = {}
        self.logo = "door.svg"
        if branding.logo:
            logo = _file(Path(branding.logo), "logo", _LOGOS, _LOGO_AT_MOST)
            self.logo = f"logo{Path(branding.logo).suffix.lower()}"
            files[f"/assets/{self.logo}"] = logo
        sheet = "".join(f"  --{name}: {value};\n" for name, value in _variables(branding))
        self.has_sheet = bool(sheet)
        if sheet:
            files["/assets/brand.css"] = static(f":root {{\n{sheet}}}\n".encode(), _ASSETS[".css"])
        if self.templates is not None:
            check_templates(self.templates)
            for path in sorted(found for found in (self.templates / "assets").rglob("*") if found.is_file()):
                name = path.relative_to(self.templates / "assets").as_posix()
                files[f"/assets/own/{name}"] = _file(path, "a file of assets/", _ASSETS, _ASSET_AT_MOST)
        self.files: Mapping[str, StaticFile] = files
        self.served: Mapping[str, StaticFile] = {**STATIC, **files}

    def asset(self, base: str, name: str) -> str:
        """Return the address of a file: another one for each content, so that browsers keep it without asking.

        Raises:
            Misconfigured: there is no such file.
        """
        path = f"/assets/{name}"
        if path not in self.served:
            raise Misconfigured(f"A template shows the file {name}, which is not there.")
        return f"{base}{path}?v={self.served[path].version}"


def _variables(branding: Branding) -> Iterator[tuple[str, str]]:
    """Return the variables of the sheet that differ from ours."""
    if branding.accent:
        accent = _accent(branding)
        yield "accent", f"light-dark({accent.light}, {accent.dark})"
        yield "on-accent", f"light-dark({accent.on_light}, {accent.on_dark})"
    if branding.radius is not None:
        if not _SHARPEST <= branding.radius <= _ROUNDEST:
            raise Misconfigured(f"radius is {branding.radius}. Give pixels from {_SHARPEST} to {_ROUNDEST}.")
        yield "radius", f"{branding.radius}px"
    if branding.font:
        # A `;` or `}` would write rules of its own into the sheet.
        if not _FONT.fullmatch(branding.font) or branding.font.count('"') % 2 or branding.font.count("'") % 2:
            raise Misconfigured(
                f"font is {branding.font!r}. Give names of fonts, such as 'Inter, system-ui, sans-serif'."
            )
        yield "font", branding.font


def _accent(branding: Branding) -> Accent:
    light, dark = _readable("accent", branding.accent.lower(), 0), _dark_accent(branding)
    return Accent(light, dark, _ink_on(light), _ink_on(dark))


def _dark_accent(branding: Branding) -> str:
    if branding.accent_dark:
        return _readable("accent_dark", branding.accent_dark.lower(), 1)
    return _nearest(branding.accent.lower(), 1)


def _readable(name: str, accent: str, theme: int) -> str:
    """Return the accent, if it can be read as text in this theme (0: light, 1: dark)."""
    least = min(contrast(accent, ground) for ground in _grounds(theme))
    if least < CONTRAST:
        raise Misconfigured(
            f"{name} {accent} has a contrast of {least:.1f} on the {('light', 'dark')[theme]} pages, and people need "
            f"{CONTRAST} to read it (WCAG 2.2, 1.4.3). The nearest colour that has it is {_nearest(accent, theme)}."
        )
    return accent


def _grounds(theme: int) -> list[str]:
    """What an accent stands on: the page and the cards, in the colours that the sheet of the pages has."""
    sheet = STATIC["/assets/page.css"].content.decode()
    found = re.findall(r"--(?:paper|card): light-dark\((#\w+), (#\w+)\)", sheet)
    return [_long(each[theme]) for each in found]


def _nearest(accent: str, theme: int) -> str:
    """Return the colour of the same hue, and as near in lightness as can be, that has the contrast in this theme."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*_rgb(accent))
    grounds = _grounds(theme)
    for step in range(256):
        moved = lightness + step / 255 * (1 if theme else -1)
        shade = _hex(colorsys.hls_to_rgb(hue, min(1.0, max(0.0, moved)), saturation))
        if all(contrast(shade, ground) >= CONTRAST for ground in grounds):
            return shade
    raise AssertionError("white and black have every contrast")


def _ink_on(accent: str) -> str:
    """White or nearly black: what is read better on a button."""
    return max("#ffffff", "#111111", key=lambda ink: contrast(ink, accent))


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, from 1 to 21 (WCAG 2.2)."""
    dark, light = sorted(_luminance(_rgb(each)) for each in (one, other))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: Colour) -> float:
    # The formula of WCAG 2.2, "relative luminance".
    parts = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour)  # noqa: PLR2004
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), parts, strict=True))


def _rgb(colour: str) -> Colour:
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return red, green, blue


def _hex(colour: Colour) -> str:
    return "#" + "".join(f"{round(part * 255):02x}" for part in colour)


def _long(colour: str) -> str:
    return colour if len(colour) == len("#rrggbb") else "#" + "".join(digit * 2 for digit in colour[1:])


def _folder(given: str | PathLike[str]) -> Path:
    folder = Path(given)
    if not folder.is_dir():
        raise Misconfigured(f"templates names {folder}, which is no folder.")
    return folder


def _file(path: Path, what: str, kinds: Mapping[str, str], at_most: int) -> StaticFile:
    kind = kinds.get(path.suffix.lower())
    if kind is None:
        raise Misconfigured(f"{path} ({what}) must be a file that ends in {', '.join(sorted(kinds))}.")
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise Misconfigured(f"{path} ({what}) cannot be read: {exc.strerror}.") from None
    if len(content) > at_most:
        raise Misconfigured(f"{path} ({what}) has {len(content):,} bytes. At most {at_most:,} are served.")
    return static(content, kind)


UNBRANDED = Branding()
PLAIN = Look(UNBRANDED)
"""The pages as they are."""
