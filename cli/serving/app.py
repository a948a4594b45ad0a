"""The addresses: TensorFlow Serving's, and those of the page."""

from __future__ import annotations

import asyncio
import functools
import importlib.resources
import re
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tfvamp_cli.serving.desk import ClientLeft, Desk
from tfvamp_cli.serving.limits import Limits, Refused
from tfvamp_cli.serving.served import ServedModel

PIECE = 64 * 1024  # bytes of an answer that are sent before the client must take them
MOST_PICTURES = 200  # maximum number of pseudo-inputs in a request of the page
LEFT = 499  # the status that proxies log for a client that did not wait; nobody receives it
# The page loads nothing from elsewhere and sends nothing there, whatever an export's texts contain.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Held:
    """The bytes of bodies and answers in memory, for all requests together."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self.count = 0

    def add(self, count: int) -> None:
        if self.count + count > self.limits.held:
            raise Refused(503, "too much is being sent: ask again later", 5)
        self.count += count


def build_app(model: ServedModel, name: str = "tfvamp", hosts: Sequence[str] | None = None) -> Starlette:
    """Returns the application.

    Args:
      model: the model that answers the requests.
      name: name of the model in the addresses.
      hosts: host names, without ports, that requests may use; None for any. This refuses a page from elsewhere that
        makes its own name lead here (DNS rebinding), because its requests use that name.
    """
    limits = model.limits
    desk, held = Desk(limits), Held(limits)
    version_spec = {"name": name, "signature_name": "", "version": model.version}
    page = importlib.resources.files(__package__).joinpath("page.html").read_bytes()

    def check(request: Request) -> None:
        asked, version = request.path_params["name"], request.path_params.get("version")
        if asked != name or version not in (None, model.version):
            what = asked[:60] if version is None else f"{asked[:60]}, version {version[:20]}"
            raise Refused(404, f"there is no model {what}: {name}, version {model.version}, is served")

    async def status(request: Request) -> Response:
        check(request)
        state = {
            "version": model.version,
            "state": "AVAILABLE",
            "status": {"error_code": "OK", "error_message": ""},
        }
        return JSONResponse({"model_version_status": [state]})

    async def metadata(request: Request) -> Response:
        check(request)
        return JSONResponse(
            {"model_spec": version_spec, "metadata": {"signature_def": {"signature_def": model.metadata()}}}
        )

    async def predict(request: Request) -> Response:
        check(request)
        desk.check_free()  # before the body is taken
        body = await _body(request, limits, held)
        try:
            return await computed(request, functools.partial(model.answer, body))
        finally:
            held.count -= len(body)

    async def only_post(request: Request) -> Response:
        raise HTTPException(405, "predict takes POST, with a body", {"Allow": "POST"})

    async def about(request: Request) -> Response:
        return JSONResponse(
            {
                "name": name,
                "version": model.version,
                "of": model.about,
                **model.sizes,
                "signatures": list(model.signatures),
                "requests": {"now": desk.pending, **desk.counts},
            }
        )

    async def posteriors(request: Request) -> Response:
        return await computed(request, model.posteriors)

    async def pictures(request: Request) -> Response:
        first, count = _number(request, "first", 0, 2**31), _number(request, "count", 1, MOST_PICTURES)
        return await computed(request, functools.partial(model.pictures, first, count))

    async def home(request: Request) -> Response:
        return Response(page, media_type="text/html", headers={"Content-Security-Policy": POLICY})

    async def computed(request: Request, work: Callable[[], bytes]) -> Response:
        answer = await desk.compute(work, _leaves(request))
        held.add(len(answer))
        return StreamingResponse(
            _pieces(answer, held),
            media_type="application/json",
            headers={"Content-Length": str(len(answer))},
        )

    def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
        return JSONResponse({"error": str(error)}, error.status, headers)

    def not_found(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    def left(request: Request, error: Exception) -> Response:
        return Response(status_code=LEFT)

    of_model = "/v1/models/{name}", "/v1/models/{name}/versions/{version}"
    routes = [
        *(Route(f"{path}:predict", predict, methods=["POST"]) for path in of_model),
        *(Route(f"{path}:predict", only_post) for path in of_model),
        *(Route(f"{path}/metadata", metadata) for path in of_model),
        *(Route(path, status) for path in of_model),
        Route("/", home),
        Route("/about", about),
        Route("/pseudo-inputs", pictures),
        Route("/pseudo-inputs/posteriors", posteriors),
    ]
    handlers: dict[Any, Any] = {
        Refused: refused,
        HTTPException: not_found,
        ClientLeft: left,
        ClientDisconnect: left,
    }
    middleware = [] if hosts is None else [Middleware(OnlyHosts, hosts=hosts)]
    app = Starlette(routes=routes, exception_handlers=handlers, middleware=middleware)
    app.state.desk = desk
    return app


class OnlyHosts:
    """Refuses requests whose Host is not among the names."""

    def __init__(self, app: Any, hosts: Sequence[str]):
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        said = Headers(scope=scope).get("host", "")
        name = said.rpartition(":")[0] if re.search(r":[0-9]*$", said) else said
        if name.lower() in self.hosts:
            await self.app(scope, receive, send)
            return
        text = "this server is asked as localhost: tfvamp serve --allow-host NAME for other names"
        await JSONResponse({"error": text}, 403)(scope, receive, send)


async def _body(request: Request, limits: Limits, held: Held) -> bytes:
    """Returns the body of a request, counted in `held`."""
    too_large = Refused(413, f"the body must have at most {limits.max_body} bytes")
    said = request.headers.get("content-length", "")
    if re.fullmatch("[0-9]+", said) and int(said[:20]) > limits.max_body:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.patience):
            async for chunk in request.stream():
                if len(body) + len(chunk) > limits.max_body:
                    raise too_large
                held.add(len(chunk))
                body += chunk
    except TimeoutError:
        held.count -= len(body)
        raise Refused(408, f"the body must be sent within {limits.patience:g} seconds") from None
    except BaseException:
        held.count -= len(body)
        raise
    return bytes(body)


async def _leaves(request: Request) -> None:
    """Ends when the client leaves; its body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _pieces(answer: bytes, held: Held) -> AsyncIterator[bytes]:
    """Yields an answer in pieces, each of which is sent once the client has taken those before."""
    try:
        for start in range(0, len(answer), PIECE):
            yield answer[start : start + PIECE]
    finally:
        held.count -= len(answer)


def _number(request: Request, name: str, low: int, high: int) -> int:
    """Returns a whole number from the address."""
    text = request.query_params.get(name, "")
    if not re.fullmatch("[0-9]{1,10}", text) or not low <= int(text) <= high:
        raise Refused(400, f"{name} must be a whole number between {low} and {high}")
    return int(text)
