"""The files of the pages for people."""

import os
from pathlib import Path

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

WEB = Path(__file__).parent.parent / "web"


class Pages(StaticFiles):
    """Static files that a browser asks for anew each time, and gets when they have changed.

    Without a build step a file keeps its name over releases: an old one beside a new one would
    break the page.
    """

    def __init__(self) -> None:
        """Serves `router/web`."""
        super().__init__(directory=WEB)

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """The file, or 304."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers["Cache-Control"] = "no-cache"
        return response
