"""The real openai client against an endpoint on the loopback, on its good days and its bad ones."""

import pytest

from agent_bridge.loop.conversation import Ask, Capabilities, Format, Said
from agent_bridge.loop.provider import OK, Provider, ProviderDown, Unsupported, api_key, check_url
from bench.scripted_endpoint import Endpoint, error, raw, serving
from runtime.errors import SurefootError

ASK = Ask("system", [Said("user", "hello")], OK)
RESPONSES, CHAT = Capabilities(Format.RESPONSES, False), Capabilities(Format.CHAT_JSON, False)


def provider(endpoint: Endpoint, pauses: list[float] | None = None, timeout: float = 20.0, key: str = "k") -> Provider:
    waits: list[float] = [] if pauses is None else pauses
    return Provider("tiny", endpoint.url, key, timeout=timeout, retries=2, pause=waits.append)


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        (Endpoint(), Capabilities(Format.RESPONSES, True)),
        (Endpoint(tools=False), Capabilities(Format.RESPONSES, False)),
        (Endpoint(paths=("/v1/chat/completions",)), Capabilities(Format.CHAT_SCHEMA, True)),
        (Endpoint(schema=False), Capabilities(Format.CHAT_JSON, True)),
        (Endpoint(schema=False, json_mode=False, tools=False), Capabilities(Format.CHAT_TEXT, False)),
    ],
)
def test_the_best_form_that_the_endpoint_knows_is_found(endpoint: Endpoint, expected: Capabilities) -> None:
    with serving(endpoint):
        assert provider(endpoint).probe()[0] == expected


def test_an_endpoint_that_knows_nothing_is_named_with_what_was_tried() -> None:
    with serving(Endpoint(paths=())) as endpoint, pytest.raises(SurefootError, match="nothing works: responses"):
        provider(endpoint).probe()


def test_a_refused_key_ends_it_at_once() -> None:
    with serving(Endpoint(key="right")) as endpoint, pytest.raises(SurefootError, match="the key was refused"):
        provider(endpoint, key="wrong").probe()
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize("capabilities", [RESPONSES, CHAT])
def test_text_tool_calls_and_usage_are_read(capabilities: Capabilities) -> None:
    with serving(Endpoint(script=["hi", [("status", "{}")]])) as endpoint:
        first, second = (provider(endpoint).ask(ASK, capabilities) for _ in range(2))
    assert (first.text, first.problem, first.usage.input, first.usage.output) == ("hi", "", 100, 20)
    assert [(c.name, c.arguments) for c in second.calls] == [("status", "{}")]


@pytest.mark.parametrize("capabilities", [RESPONSES, CHAT])
def test_usage_that_is_null_is_unknown_not_zero(capabilities: Capabilities) -> None:
    with serving(Endpoint(script=["hi"], usage=False)) as endpoint:
        usage = provider(endpoint).ask(ASK, capabilities).usage
    assert (usage.known, usage.input) == (False, None)


def test_too_many_requests_are_waited_for_as_long_as_the_provider_says() -> None:
    pauses: list[float] = []
    with serving(Endpoint(script=[error(429, "slow down", retry_after="7"), "hi"])) as endpoint:
        assert provider(endpoint, pauses).ask(ASK, RESPONSES).text == "hi"
    assert pauses == [7.0]


def test_a_failing_server_is_asked_again_with_growing_pauses_and_then_given_up() -> None:
    pauses: list[float] = []
    with (
        serving(Endpoint(script=[error(500, "boom")] * 3)) as endpoint,
        pytest.raises(ProviderDown, match=r"boom.*3 tries"),
    ):
        provider(endpoint, pauses).ask(ASK, RESPONSES)
    assert pauses == [2.0, 4.0]


def test_a_body_that_is_cut_off_or_no_json_is_asked_for_again() -> None:
    with serving(Endpoint(script=[raw(b'{"id": "r", "outp'), raw(b"<html>"), "hi"])) as endpoint:
        assert provider(endpoint).ask(ASK, RESPONSES).text == "hi"


@pytest.mark.parametrize(
    ("capabilities", "body"),
    [
        (CHAT, b'{"choices": [{"message": {"role": "assistant", "content": [{"type": "text", "text": "{}"}]}}]}'),
        (CHAT, b'{"choices": {"message": "hi"}}'),
        (CHAT, b'{"choices": [{"message": {"role": "assistant", "tool_calls": 7}}]}'),
        (RESPONSES, b'{"output": [{"type": "message", "content": [{"type": "output_text", "text": 5}]}]}'),
        (RESPONSES, b'{"output": 5}'),
    ],
)
def test_a_body_of_another_form_is_asked_for_again(capabilities: Capabilities, body: bytes) -> None:
    with serving(Endpoint(script=[raw(body), "hi"])) as endpoint:
        assert provider(endpoint).ask(ASK, capabilities).text == "hi"


@pytest.mark.parametrize("capabilities", [RESPONSES, CHAT])
@pytest.mark.parametrize("body", [b"[]", b"null", b'"hi"', b"5", b"{}"])
def test_a_body_that_is_no_answer_at_all_is_a_problem_and_no_crash(capabilities: Capabilities, body: bytes) -> None:
    with serving(Endpoint(script=[raw(body)] * 3)) as endpoint:
        try:
            assert provider(endpoint).ask(ASK, capabilities).problem
        except ProviderDown as down:
            assert "3 tries" in str(down)


def test_a_stream_that_drips_ends_at_the_deadline() -> None:
    with (
        serving(Endpoint(script=["hi"] * 3, drip=0.05)) as endpoint,
        pytest.raises(ProviderDown, match="no whole answer"),
    ):
        provider(endpoint, timeout=0.2).ask(ASK, RESPONSES)


def test_nobody_at_the_address_is_said_in_one_line() -> None:
    with serving(Endpoint()) as endpoint:
        pass
    with pytest.raises(ProviderDown) as raised:
        provider(endpoint).ask(ASK, CHAT)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b'{"object": "chat.completion", "choices": []}', "no message"),
        (b'{"choices": [{"finish_reason": "length", "message": {"role": "assistant", "content": "{"}}]}', "cut off"),
        (b'{"choices": [{"message": {"role": "assistant", "content": null, "refusal": "no"}}]}', "refused: no"),
        (b'{"choices": [{"finish_reason": "stop", "message": {"role": "assistant", "content": ""}}]}', "empty"),
    ],
)
def test_an_answer_that_is_not_whole_says_why(body: bytes, problem: str) -> None:
    with serving(Endpoint(script=[raw(body)])) as endpoint:
        assert problem in provider(endpoint).ask(ASK, CHAT).problem


def test_a_request_that_the_endpoint_does_not_take_is_not_retried() -> None:
    with serving(Endpoint(script=[error(400, "no")])) as endpoint, pytest.raises(Unsupported):
        provider(endpoint).ask(ASK, CHAT)
    assert len(endpoint.requests) == 1


def test_a_missing_key_is_asked_for_unless_the_endpoint_is_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    assert api_key("NO_SUCH_KEY", "http://127.0.0.1:1/v1") == "none"
    with pytest.raises(SurefootError, match="no key: set NO_SUCH_KEY"):
        api_key("NO_SUCH_KEY", None)


@pytest.mark.parametrize("url", ["127.0.0.1:80", "ftp://x", "http://"])
def test_an_address_that_is_no_endpoint_is_refused(url: str) -> None:
    with pytest.raises(SurefootError, match="expected an address"):
        check_url(url)
