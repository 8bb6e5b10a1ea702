"""The page for people at `/docs`, made from the OpenAPI document; no script, nothing from afar."""

from html import escape
from typing import Any


def docs_page(document: dict[str, Any]) -> str:
    """Every request of an OpenAPI 3.1 document as HTML."""
    title = escape(document["info"]["title"])
    requests = "\n".join(
        _request(path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title} – HTTP API</title>
<h1>{title} {escape(document["info"]["version"])} – HTTP API</h1>
<p>{escape(document["info"].get("summary", ""))}
The same for machines: <a href="/openapi.json">openapi.json</a>.
Every error is <code>{{"error": {{"message", "type", "param", "code"}}}}</code>.</p>
<dl>
{requests}
</dl>
</html>
"""


def _request(path: str, method: str, operation: dict[str, Any]) -> str:
    parameters = ", ".join(
        f"<code>{escape(parameter['name'])}</code> ({escape(parameter['in'])})"
        for parameter in operation.get("parameters", ())
    )
    answers = ", ".join(escape(status) for status in operation["responses"])
    lines = [
        f"<dt><code>{escape(method.upper())} {escape(path)}</code></dt>",
        f"<dd>{escape(operation.get('description', ''))}",
        f"<br>Body: <code>{escape(_body(operation))}</code>" if "requestBody" in operation else "",
        f"<br>Parameters: {parameters}" if parameters else "",
        f"<br>Answers: {answers}</dd>",
    ]
    return "\n".join(filter(None, lines))


def _body(operation: dict[str, Any]) -> str:
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    return str(schema.get("$ref", "")).rpartition("/")[2] or str(schema.get("type", ""))
