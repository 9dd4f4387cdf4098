"""The description of the server as a page without scripts, fonts or anything else from another host."""

from __future__ import annotations

from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
pre { padding: .8rem; overflow-x: auto; background: color-mix(in srgb, currentColor 8%, transparent); }
code, pre { font-family: ui-monospace, monospace; font-size: .88rem; }
table { border-collapse: collapse; width: 100%; }
td { border-top: 1px solid color-mix(in srgb, currentColor 20%, transparent); padding: .3rem .8rem .3rem 0; }
td:first-child { white-space: nowrap; vertical-align: top; }
.note { font-weight: 600; }
"""

_EXAMPLES = """
<h2>Examples</h2>
<pre>curl --form "files=@scan.png" --form "files=@scan.dcm" ADDRESS/predict</pre>
<pre>curl --json '{"images": [{"name": "scan.png", "base64": "…"}]}' ADDRESS/predict</pre>
<p>Where the server has a key: <code>--header "Authorization: Bearer KEY"</code>. Each picture of the answer has a
<code>status</code> of its own, 200 or 422 with an <code>error</code>.</p>
"""


def docs_page(schema: dict[str, Any]) -> str:
    """Returns the page.

    Args:
        schema: what `/openapi.json` says, OpenAPI 3.
    """
    info = schema["info"]
    routes = [
        _route(path, method, told) for path, methods in schema["paths"].items() for method, told in methods.items()
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>{escape(info['title'])}</h1>"
        f'<p class="note">{escape(info.get("description", ""))}</p><p>diffmiczoo {escape(info["version"])}. '
        f'All of it for programs: <a href="openapi.json">openapi.json</a> (OpenAPI {escape(schema["openapi"])}).</p>'
        f"{''.join(routes)}{_EXAMPLES}</body></html>"
    )


def _route(path: str, method: str, told: dict[str, Any]) -> str:
    rows = [
        f"<tr><td><code>{escape(status)}</code></td><td>{escape(answer['description'])}</td></tr>"
        for status, answer in sorted(told["responses"].items())
    ]
    kinds = " or ".join(f"<code>{escape(kind)}</code>" for kind in told.get("requestBody", {}).get("content", {}))
    body = f"<p>Takes {kinds}.</p>" if kinds else ""
    heading = f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(told['summary'])}.</p>"
    return f"{heading}{body}<table>{''.join(rows)}</table>"
