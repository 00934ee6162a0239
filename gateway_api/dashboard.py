"""What a browser sees at `/`: deployments with their health, and alerts, read with the key that is typed in there."""

import base64
import hashlib
import re
from pathlib import Path

from aiohttp import web

_PAGE = (Path(__file__).parent / "dashboard.html").read_text()


def _hash(tag: str) -> str:
    """Return the only inline element of a kind that a browser may use, as a content security policy names it."""
    found = re.search(f"<{tag}>(.*?)</{tag}>", _PAGE, re.DOTALL)
    assert found is not None
    return "'sha256-" + base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode() + "'"


_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; script-src {_hash('script')}; style-src {_hash('style')}; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
}


async def index(_: web.Request) -> web.Response:
    """`GET /`: the page; it holds nothing of anybody's."""
    return web.Response(text=_PAGE, content_type="text/html", headers=_HEADERS)
