"""What the document says in prose or in its `webhooks` section, where JSON Schema cannot: a valid value may be refused
for what it means, and for nothing else."""

import re
from datetime import datetime, timezone
from itertools import count
from urllib.parse import urlsplit

import schemathesis
from schemathesis.generation import GenerationMode
from schemathesis.generation.meta import TestPhase


def is_valid(case):
    """Whether the request keeps to the schemas of its operation."""
    return case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE


def is_in_chain(case):
    """Whether other requests are made with what the response to this one says."""
    return case.meta is not None and case.meta.phase.name is TestPhase.STATEFUL


def is_plain(url):
    """Whether no sentence of the document speaks against the URL, whatever the server makes of stranger ones."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    host = parts.hostname or ""
    return (
        parts.scheme in ("http", "https")
        and "@" not in parts.netloc
        and "#" not in url
        and port != 0
        and len(host) <= 253
        and re.fullmatch(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z]([a-z0-9-]{0,61}[a-z0-9])?", host) is not None
        and "xn--" not in host
    )


def is_made_by_the_service(case, name):
    """Whether the catalog says of the event type that nobody else publishes it."""
    event_type = case.operation.schema.raw_schema["webhooks"].get(name, {})
    return "The service publishes this event itself" in event_type.get("post", {}).get("description", "")


def is_of_meaning(fault, case):
    """Whether the document says of the value, outside its schema, that it is refused."""
    body = case.body
    match fault["pointer"], fault["code"]:
        case _, "unknown_event_type":
            return True
        case "/type", "reserved_event_type":
            return is_made_by_the_service(case, body["type"])
        case "/org_id", "organization":
            # Every token of these runs is bound to one organization; naming another one is refused.
            return True
        case "/since", "range":
            # The span of a replay ends after it begins, and now if it does not say.
            until = body.get("until")
            end = datetime.fromisoformat(until) if until else datetime.now(timezone.utc)
            # The service keeps milliseconds.
            return (end - datetime.fromisoformat(body["since"])).total_seconds() < 0.001
        case "query/created_after", "range":
            begin, end = (datetime.fromisoformat(case.query[name]) for name in ("created_after", "created_before"))
            return (end - begin).total_seconds() < 0.001
        case "/url", _:
            return not is_plain(body["url"])
        case pointer, _:
            # The catalog has the schema of an event's data.
            return pointer == "/data" or pointer.startswith("/data/")


numbers = count(1)


@schemathesis.hook
def before_call(_context, case, _kwargs):
    """Valid requests that would hardly ever be admitted are changed into ones that are."""
    if not is_valid(case):
        return
    number = next(numbers)
    headers = case.headers or {}
    # The same few keys come repeatedly, each time with another request (409). One in four is left to it, but not in a
    # chain that begins with a creation: the stored response to the same request names a webhook that another chain may
    # have deleted since, and Schemathesis expects that what was just created is there.
    key = headers.get("Idempotency-Key")
    creates_in_chain = is_in_chain(case) and case.operation.definition.raw.get("operationId") == "create_webhook"
    if key is not None and (number % 4 or creates_in_chain):
        headers["Idempotency-Key"] = f"{key[:200]}-{number}"
    # No made-up version is the webhook's (412). The coverage phase even finds none to make up, and takes a number for it.
    version = headers.get("If-Match")
    if version is not None and (number % 4 or str(version).isdigit()):
        headers["If-Match"] = "*"
    body = case.body
    if not isinstance(body, dict) or number % 4 == 0:
        return
    # Hardly any made-up event type is one of the catalog.
    catalog = case.operation.schema.raw_schema["webhooks"]
    match case.operation.definition.raw.get("operationId"):
        case "test_webhook" if body.get("event_type"):
            body["event_type"] = sorted(catalog)[number % len(catalog)]
        case "publish_event":
            # The ones of the service itself are among them, and are refused.
            name = sorted(catalog)[number % len(catalog)]
            content = catalog[name]["post"]["requestBody"]["content"]["application/json"]
            body["type"], body["data"] = name, example(content)["data"]
            body.pop("org_id", None)
            # The same few ids, again.
            if number % 2:
                body.pop("id", None)


def example(content):
    """The payload that the document shows for an event type."""
    if "example" in content:
        return content["example"]
    return next(iter(content["examples"].values()))["value"]


@schemathesis.check
def refuses_valid_for_its_meaning_alone(_context, response, case):
    """A valid request gets 422 for what the document says outside its schema, and names it."""
    if response.status_code != 422 or not is_valid(case):
        return
    faults = response.json().get("errors", [])
    assert faults, "a refusal names no fault"
    others = [fault for fault in faults if not is_of_meaning(fault, case)]
    assert not others, f"a valid request is refused for more than its meaning: {others}"


@schemathesis.check
def refuses_only_what_was_asked_for(_context, response, case):
    """412 is the response to an If-Match that lists versions; 409 has a reason that the document names."""
    headers = case.headers or {}
    if response.status_code == 412:
        assert headers.get("If-Match", "*") != "*", "a precondition failed that nobody set"
    if response.status_code != 409:
        return
    problem, operation = response.json(), case.operation.definition.raw["operationId"]
    if problem["code"] == "idempotency_mismatch" or "retry-after" in response.headers:
        assert "Idempotency-Key" in headers, "a conflict with a key that nobody sent"
    else:
        by_id = operation == "publish_event" and case.body.get("id")
        assert by_id or operation in ("create_webhook", "retry_delivery"), "there is nothing to contradict"
