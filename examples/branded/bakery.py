"""Pages that look like a bakery: an accent, a logo, a font, and two templates in place of ours.

    pip install 'dutchdoor[fastapi]' uvicorn
    python examples/branded/bakery.py

Then open http://localhost:8000/auth/login.
"""

from __future__ import annotations

from pathlib import Path

import uvicorn
from fastapi import FastAPI

from dutchdoor import Branding
from dutchdoor.fastapi import Auth

HERE = Path(__file__).parent
BAKERY = Branding(
    accent="#9a3412",
    logo=HERE / "loaf.svg",
    radius=0,
    font="Georgia, 'Times New Roman', serif",
    templates=HERE / "templates",
)

app = FastAPI()
auth = Auth(app, "sqlite:///example.db", master_key="example.keys", product="Brot & Butter", branding=BAKERY)

if __name__ == "__main__":
    uvicorn.run(app, port=8000)
