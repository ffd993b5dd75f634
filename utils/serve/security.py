"""Who may read and who may act: the token, the host that was asked for, and what pages may load.

Whoever can reach the server on its own machine may read, unless a token was asked for; bound elsewhere, nothing is
answered without the token. Whatever changes a run needs the token, and a request that only our own pages can make.
"""

import hmac
import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

API = "/api/"
ACTION_HEADER = "X-Limbeck-Action"
_READING = ("GET", "HEAD")
_COOKIE_SECONDS = 30 * 24 * 3600

# Everything comes from this server, and nothing in a page is a script or a style by itself. Plotly draws its buttons
# as pictures of its own making (data:).
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-src 'self'; worker-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# Of the worker that the browser's translation engine runs in: it may compile WebAssembly.
WORKER_POLICY = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'"
# What a task wrote is shown as if it came from nowhere: its scripts run (the report sorts its tables), but see neither
# cookies nor this server.
ARTIFACT_POLICY = (
    "sandbox allow-scripts allow-popups; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; font-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)

_HEADERS = {
    "Content-Security-Policy": PAGE_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Access:
    """`token` is the server's secret. `loopback`: only this machine can reach it. `public`: reading takes no token."""

    token: str
    loopback: bool
    public: bool

    def is_token(self, given: str | None) -> bool:
        """Whether that is the token, in a time that does not depend on how much of it is right."""
        # Headers may hold bytes that are no text.
        return given is not None and hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self.token.encode())


def is_loopback(host: str) -> bool:
    """Whether a server bound to that address can be reached from its own machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def guard(access: Access) -> Middleware:
    """The middleware through which every request goes."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if access.loopback and not _is_own_name(request.host):
            # A page of another site whose name was made to mean this machine (DNS rebinding).
            raise web.HTTPForbidden(text=f"this server does not answer for {request.host}")
        given = request.query.get("token")
        if given is not None and not access.is_token(given):
            raise web.HTTPUnauthorized(text="that is not the token which limbeck serve printed when it started")
        if given is not None and request.method == "GET" and not request.path.startswith(API):
            return _remember(request, access)
        known = given is not None or access.is_token(_bearer(request)) or access.is_token(_cookie(request))
        if not known and not access.public:
            raise web.HTTPUnauthorized(text="open the address with ?token=… that limbeck serve printed")
        if request.method not in _READING:
            _check_action(request, known, access)
        return await handler(request)

    return middleware


async def add_headers(_: web.Request, response: web.StreamResponse) -> None:
    """What every answer says, unless it says otherwise itself."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)


def cookie_name(request: web.Request) -> str:
    """Cookies do not tell ports apart; several servers may run on a machine."""
    return f"limbeck-{request.url.port}"


def _cookie(request: web.Request) -> str | None:
    return request.cookies.get(cookie_name(request))


def _bearer(request: web.Request) -> str | None:
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    return credentials if scheme.lower() == "bearer" else None


def _remember(request: web.Request, access: Access) -> web.Response:
    """To the same page without the token, which neither a bookmark nor a neighbour's glance should catch."""
    plain = request.rel_url.without_query_params("token")
    # One slash only: //host would lead elsewhere.
    answer = web.Response(status=303, headers={"Location": "/" + str(plain).lstrip("/")})
    answer.set_cookie(
        cookie_name(request), access.token, max_age=_COOKIE_SECONDS, httponly=True, samesite="Lax", secure=False
    )
    return answer


def _is_own_name(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    return is_loopback(name)


def _check_action(request: web.Request, known: bool, access: Access) -> None:
    if not known:
        raise web.HTTPForbidden(text="that takes the token: open the address with ?token=… that limbeck serve printed")
    origin = request.headers.get("Origin")
    # A browser says which page asks. What says nothing is no browser, and then has sent the token itself.
    same = urlsplit(origin).netloc == request.host if origin else access.is_token(_bearer(request))
    if not same or ACTION_HEADER not in request.headers:
        raise web.HTTPForbidden(text="only the pages of this server may ask for that")
