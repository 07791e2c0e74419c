"""A page that signs people in by the browser client, without a build.

pip install 'dutchdoor[fastapi]' uvicorn
python examples/browser/plain/shop.py
"""

from __future__ import annotations

from pathlib import Path

import uvicorn
from fastapi import FastAPI
from fastapi.responses import FileResponse

from dutchdoor.fastapi import Auth

HERE = Path(__file__).parent
POLICY = "default-src 'none'; script-src 'self'; connect-src 'self'; require-trusted-types-for 'script'"

app = FastAPI()
auth = Auth(app, "sqlite:///example.db", master_key="example.keys", product="The shop")


@app.get("/")
async def index() -> FileResponse:
    return FileResponse(HERE / "index.html", headers={"content-security-policy": POLICY})


@app.get("/shop.js")
async def script() -> FileResponse:
    return FileResponse(HERE / "shop.js")


if __name__ == "__main__":
    uvicorn.run(app, port=8000)
