"""`/console`: the status page and its files.

The page is guarded like the administration API. A browser cannot present a key before it has a page to ask for one, so
the 401 of `GET /console` has the page as its body when the caller accepts HTML: the same shell, which asks for the key.
Its files and the runbooks are for everybody; they are
those of the published package and hold no data. Why it is so: docs/console.md.
"""

from collections.abc import Mapping

from tokmesh import console
from tokmesh.api.answer import Answer, Reply, Request
from tokmesh.api.query import NO_QUERY
from tokmesh.errors import ApiError


class ConsoleHandlers:
    """Serves what `console.load` found."""

    def __init__(self) -> None:
        self._files = _answers(console.load())
        self._runbooks = _answers(console.load_runbooks())
        self._page = self._files[console.PAGE]
        self.sign_in = Answer(401, self._page.content_type, self._page.body, self._page.headers)

    async def page(self, request: Request) -> Reply:
        """GET /console."""
        NO_QUERY.parse(request)
        return self._page

    async def file(self, request: Request) -> Reply:
        """GET /console/{file}. Raises TM-SYS-4040 for a name that is no file of the page."""
        return _found(request, self._files)

    async def runbook(self, request: Request) -> Reply:
        """GET /console/runbooks/{file}. Raises TM-SYS-4040 for a name that is no runbook."""
        return _found(request, self._runbooks)


def _answers(assets: Mapping[str, console.Asset]) -> dict[str, Answer]:
    return {
        name: Answer(200, asset.content_type, asset.body, console.HEADERS) for name, asset in assets.items()
    }


def _found(request: Request, answers: Mapping[str, Answer]) -> Answer:
    NO_QUERY.parse(request)
    answer = answers.get(request.params[0])
    if answer is None:
        raise ApiError("TM-SYS-4040")
    return answer
