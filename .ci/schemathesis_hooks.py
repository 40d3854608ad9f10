"""What the document says in prose or in its `webhooks` section, where JSON Schema cannot: a valid value may be refused
for what it means, and for nothing else."""

import re
from urllib.parse import urlsplit

import schemathesis
from schemathesis.generation import GenerationMode


def is_valid(case):
    """Whether the request keeps to the schemas of its operation."""
    return case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE


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


def is_of_meaning(fault, body):
    """Whether the document says of the value, outside its schema, that it is refused."""
    match fault["pointer"], fault["code"]:
        case _, "unknown_event_type":
            return True
        case "/org_id", "organization":
            # Every token of these runs is bound to one organization; naming another one is refused.
            return True
        case "/url", _:
            return not is_plain(body["url"])
        case pointer, _:
            # The catalog has the schema of an event's data.
            return pointer == "/data" or pointer.startswith("/data/")


@schemathesis.hook
def before_call(_context, case, _kwargs):
    """Half of the valid events are ones of the catalog: hardly any made-up one would be published."""
    if case.operation.definition.raw.get("operationId") != "publish_event" or not is_valid(case):
        return
    body = case.body
    if not isinstance(body, dict) or len(body.get("type", "")) % 2:
        return
    catalog = case.operation.schema.raw_schema["webhooks"]
    names = sorted(catalog)
    name = names[len(str(body)) % len(names)]
    content = catalog[name]["post"]["requestBody"]["content"]["application/json"]
    body["type"], body["data"] = name, example(content)["data"]
    body.pop("org_id", None)


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
    others = [fault for fault in faults if not is_of_meaning(fault, case.body)]
    assert not others, f"a valid request is refused for more than its meaning: {others}"
