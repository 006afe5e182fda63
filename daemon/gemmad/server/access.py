"""One log line a request: what was asked and how it ended; no query, no body, so no prompts."""

from gemmad.server.aiohttp_web import AbstractAccessLogger, web


class AccessLogger(AbstractAccessLogger):
    """Writes `POST /api/chat 200 1234 bytes 56 ms`."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """One answered request."""
        self.logger.info(
            "%s %s %d %d bytes %.0f ms",
            request.method,
            ascii(request.path[:100])[1:-1],  # a path is a stranger's text: no control characters
            response.status,
            response.body_length,
            time * 1000,
        )
