"""Questions to a venue's REST endpoint: within its limits, again after trouble, never against its word."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

import httpx
import structlog

from k2stream.clock import Clock
from k2stream.errors import DecodeError, FeedError, FeedLost
from k2stream.feed.backoff import Backoff
from k2stream.feed.frame import NewId
from k2stream.feed.rest.bucket import Bucket
from k2stream.feed.rest.endpoint import Endpoint, Page, Question, Wanted

log = structlog.get_logger(__name__)

TIMEOUT_SECONDS = 20.0
TRIES = 6
"""Of one question, before the venue counts as away."""
BUSY, BANNED = 429, 418
STAY_AWAY_SECONDS = {BUSY: 30.0, BANNED: 120.0}
"""Where the answer does not say how long."""
MAX_BODY_BYTES = 16 << 20
"""A page of a thousand trades has some 200 kB."""


@dataclass(slots=True)
class Asked:
    """What became of the questions."""

    questions: int = 0
    again: int = 0
    """Asked once more, after no answer or one that told to wait."""


@dataclass(slots=True)
class RestClient:
    """Asks one venue, one question at a time."""

    endpoint: Endpoint
    http: httpx.AsyncClient
    clock: Clock
    bucket: Bucket
    backoff: Backoff
    asked: Asked = field(default_factory=Asked)

    async def page(self, question: Question, wanted: Wanted, *, new_id: NewId) -> Page:
        """The answer; raises FeedLost if the venue does not give one, FeedError if it refuses, or answers what is no answer."""
        for left in range(TRIES - 1, -1, -1):
            await asyncio.sleep(self.bucket.take(self.clock.monotonic()))
            self.asked.questions += 1
            try:
                body = await self._ask(question)
                found = self.endpoint.read(body, question, wanted, new_id=new_id, now_us=self.clock.now_us())
            except DecodeError as exc:
                raise FeedError(str(exc)) from exc
            except FeedLost as exc:
                if not left:
                    raise
                await self._wait(exc)
            else:
                self.backoff.succeeded()
                return found
        raise AssertionError("the last try returns or raises")

    async def _wait(self, exc: FeedLost) -> None:
        self.asked.again += 1
        delay_seconds = self.backoff.failed(exc.retry_after_seconds)
        log.warning("backfill.asks_again", venue=self.endpoint.venue, cause=str(exc), again_in_seconds=round(delay_seconds, 1))
        await asyncio.sleep(delay_seconds)

    async def _ask(self, question: Question) -> bytes:
        try:
            async with self.http.stream("GET", question.path, params=dict(question.parameters)) as answer:
                body = await _whole(answer)
        except httpx.HTTPError as exc:
            raise FeedLost(f"{self.http.base_url} does not answer: {exc or type(exc).__name__}.") from exc
        self._require_good(answer, body)
        return body

    def _require_good(self, answer: httpx.Response, body: bytes) -> None:
        said = self.endpoint.refusal(body) or answer.reason_phrase
        words = f"{self.http.base_url} answers {answer.status_code} to {answer.request.url.path}: {said}"
        if answer.status_code in STAY_AWAY_SECONDS or self.endpoint.is_busy(body):
            raise FeedLost(f"{words}.", retry_after_seconds=_stay_away_seconds(answer))
        if answer.status_code >= 500:
            raise FeedLost(f"{words}.")
        if answer.status_code != 200 or (self.endpoint.refusal(body)):
            raise FeedError(f"{words}. Is the symbol as the venue writes it, and the key the right one?")


async def _whole(answer: httpx.Response) -> bytes:
    """The body; raises FeedLost for one beyond any page."""
    found = bytearray()
    async for part in answer.aiter_bytes():
        found += part
        if len(found) > MAX_BODY_BYTES:
            raise FeedLost(f"{answer.request.url.path}: an answer of more than {MAX_BODY_BYTES:,} bytes.")
    return bytes(found)


def _stay_away_seconds(answer: httpx.Response) -> float:
    said = answer.headers.get("Retry-After", "")
    return float(said) if said.isdigit() else STAY_AWAY_SECONDS.get(answer.status_code, STAY_AWAY_SECONDS[BUSY])


@asynccontextmanager
async def rest_client(
    endpoint: Endpoint, url: str, *, tls: ssl.SSLContext, key: str, clock: Clock, first_pause_seconds: float = 0.5
) -> AsyncIterator[RestClient]:
    """A client of the endpoint at `url`; `key` is sent where the endpoint wants one."""
    headers = {endpoint.key_header: key} if endpoint.key_header and key else {}
    # Never by a proxy or a .netrc of the environment: what is asked goes where settings say.
    async with httpx.AsyncClient(base_url=url, headers=headers, verify=tls, timeout=TIMEOUT_SECONDS, trust_env=False) as http:
        backoff = Backoff((url,), Random(), first_pause_seconds)  # noqa: S311 # no secret
        yield RestClient(endpoint, http, clock, Bucket(endpoint.per_second, endpoint.at_once), backoff)


async def pages(client: RestClient, wanted: Wanted, *, new_id: NewId) -> AsyncIterator[Page]:
    """All pages that speak of what is wanted, in the venue's order; raises as `RestClient.page`."""
    question: Question | None = client.endpoint.begin(wanted)
    while question is not None:
        found = await client.page(question, wanted, new_id=new_id)
        yield found
        question = found.next
