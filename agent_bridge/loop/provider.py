"""A model behind an OpenAI-compatible endpoint: asked once what it can do, then asked for answers, with retries.

Every request has a deadline of its own for the whole answer: a stream that drips a byte a second is late, whatever a
read timeout says.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from agent_bridge.loop.conversation import Answer, Ask, Capabilities, Format, Said
from agent_bridge.loop.wire import chat_request, read_chat, read_response, responses_request, schema_in_words
from runtime.errors import SurefootError

RETRIES = 4
BACKOFF = 2.0
"""[s] before the first retry; it doubles."""
LONGEST_PAUSE = 60.0
"""[s]"""
LOCAL = ("127.0.0.1", "localhost", "::1")
OK = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False}
READY = {"name": "ready", "description": "Say that you can call tools.",
         "parameters": {"type": "object", "properties": {}, "additionalProperties": False}}  # fmt: skip


class ProviderDown(SurefootError):
    """The provider did not answer in spite of all retries; a later try may go better."""


class Unsupported(SurefootError):
    """The endpoint does not know what it was asked for."""


class KeyRefused(SurefootError):
    """The endpoint does not take the key: no later request will go better."""


class Provider:
    """One model at one endpoint."""

    def __init__(
        self, model: str, base_url: str | None, key: str, *, timeout: float = 300.0, retries: int = RETRIES,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        """Nothing is sent yet.

        Args:
            model: Its name at the endpoint.
            base_url: The endpoint; None: OpenAI's own.
            key: API key.
            timeout: For the whole of one answer [s].
            retries: After failures that may pass.
            pause: Waits between retries [s].
        """
        self.model, self.base_url, self._key = model, base_url, key
        self._timeout, self._retries, self._pause = timeout, retries, pause

    def ask(self, ask: Ask, capabilities: Capabilities) -> Answer:
        """One answer.

        Raises:
            KeyRefused: The key is wrong.
            SurefootError: The model or the endpoint is wrong.
            Unsupported: The endpoint does not take the request.
            ProviderDown: It failed again and again.
        """
        wait = BACKOFF
        for attempt in range(self._retries + 1):
            try:
                return asyncio.run(self._once(ask, capabilities))
            except _Passing as failure:
                if attempt == self._retries:
                    raise ProviderDown(f"{self._where}: {failure} ({attempt + 1} tries)") from None
                self._pause(min(failure.pause or wait, LONGEST_PAUSE))
                wait *= 2
        raise AssertionError("unreachable")

    @property
    def _where(self) -> str:
        return f"{self.model} at {self.base_url or 'api.openai.com'}"

    async def _once(self, ask: Ask, capabilities: Capabilities) -> Answer:
        import openai

        client = openai.AsyncOpenAI(api_key=self._key, base_url=self.base_url, max_retries=0, timeout=self._timeout)
        try:
            async with client, asyncio.timeout(self._timeout):
                if capabilities.format is Format.RESPONSES:
                    body = await client.responses.create(model=self.model, **responses_request(ask))
                    return _read(read_response, body)
                request = chat_request(ask, capabilities)
                return _read(read_chat, await client.chat.completions.create(model=self.model, **request))
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise KeyRefused(f"{self._where}: the key was refused ({_short(error)})") from None
        except (openai.NotFoundError, openai.BadRequestError, openai.UnprocessableEntityError) as error:
            raise Unsupported(f"{self._where}: {_short(error)}") from None
        except openai.APIStatusError as error:
            if error.status_code in (405, 501):
                raise Unsupported(f"{self._where}: {_short(error)}") from None
            if error.status_code not in (408, 409, 429) and error.status_code < 500:
                raise SurefootError(f"{self._where}: {_short(error)}") from None
            raise _Passing(_short(error), _retry_after(error)) from None
        except (TimeoutError, openai.APITimeoutError):
            raise _Passing(f"no whole answer within {self._timeout:g} s") from None
        except openai.APIError as error:  # no connection, a connection that broke, a body that is no answer
            raise _Passing(_short(error)) from None
        except ValueError as error:
            raise _Passing(f"the answer is not JSON ({error})") from None

    def probe(self) -> tuple[Capabilities, list[Answer]]:
        """What the endpoint and the model can do, the best way first; also the answers, for the account.

        Raises:
            SurefootError: The key is refused, or no way works.
        """
        answers: list[Answer] = []
        problems: list[str] = []
        for form in Format:
            found = Capabilities(form, tools=False)
            ask = Ask("You are asked to show that you can answer in a given form.", [Said("user", _wish(form))], OK,
                      max_tokens=2000)  # fmt: skip
            try:
                answer = self.ask(ask, found)
            except Unsupported as problem:
                problems.append(f"{form}: {problem}")
                continue
            answers.append(answer)
            if form is Format.CHAT_TEXT or _is_ok(answer.text):
                return replace(found, tools=self._calls_tools(found, answers)), answers
            problems.append(f"{form}: {answer.problem or 'the form was not kept'}")
        raise SurefootError(f"{self._where}: nothing works: {'; '.join(problems)}")

    def _calls_tools(self, found: Capabilities, answers: list[Answer]) -> bool:
        ask = Ask("Call the tool `ready`.", [Said("user", "Call the tool `ready` now.")], OK, (READY,), 2000)
        try:
            answer = self.ask(ask, found)
        except Unsupported:
            return False
        answers.append(answer)
        return any(call.name == "ready" for call in answer.calls)


class _Passing(Exception):
    """A failure after which the same request may go well."""

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause


def _read(read: Callable[[Any], Answer], body: Any) -> Answer:
    """The answer in a body, which the client does not check: fields may be of any type, or missing."""
    try:
        return read(body)
    except (AttributeError, TypeError, KeyError) as error:
        raise _Passing(f"the answer has not the form of one ({error})") from None


def api_key(variable: str, base_url: str | None) -> str:
    """The key in an environment variable; an endpoint on this machine needs none.

    Raises:
        SurefootError: There is none, and one is needed.
    """
    key = os.environ.get(variable, "").strip()
    if key:
        return key
    if base_url and urlsplit(base_url).hostname in LOCAL:
        return "none"
    raise SurefootError(f"no key: set {variable}, or name another variable with --key-from")


def check_url(base_url: str | None) -> None:
    """Refuses what cannot be an endpoint.

    Raises:
        SurefootError: It says what one looks like.
    """
    if base_url is not None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SurefootError(f"--base-url {base_url}: expected an address such as http://127.0.0.1:8000/v1")


def _wish(form: Format) -> str:
    words = 'Answer with {"ok": true}.'
    return words if form in (Format.RESPONSES, Format.CHAT_SCHEMA) else f"{words}\n{schema_in_words(OK)}"


def _is_ok(text: str) -> bool:
    try:
        return isinstance(json.loads(text).get("ok"), bool)
    except (ValueError, AttributeError):
        return False


def _short(error: Any) -> str:
    return " ".join(str(getattr(error, "message", error)).split())[:300] or type(error).__name__


def _retry_after(error: Any) -> float | None:
    try:
        return max(0.0, float(error.response.headers.get("retry-after", "")))
    except (ValueError, AttributeError):
        return None
