"""One full tour with the client that openapi-python-client makes of the document."""

import json
import os
import threading
import uuid
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, HTTPServer
from uuid import UUID

from kallima_client import AuthenticatedClient
from kallima_client.api.events import get_event, list_event_types, publish_event
from kallima_client.api.webhook_deliveries import list_attempts, list_deliveries, retry_delivery
from kallima_client.api.webhooks import create_webhook, delete_webhook, get_webhook, list_webhooks, replay_webhook, test_webhook, update_webhook
from kallima_client.models import CreateWebhook, PublishEvent, Problem, ReplayStatus, ReplayWebhook, RetryDelivery, TestWebhook, UpdateWebhook

received = []


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        received.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Receiver)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/"
client = AuthenticatedClient(base_url=os.environ["BASE"], token=os.environ["TOKEN"])


def must(answer):
    assert answer is not None and not isinstance(answer, Problem), answer
    return answer


webhook = must(create_webhook.sync(client=client, body=CreateWebhook(url=url, events=["humanization.*"])))
assert webhook.secret.startswith("whsec_")
seen = get_webhook.sync_detailed(webhook.id, client=client)
keys = {"id", "object", "url", "enabled", "events", "created_at", "updated_at"}
assert json.loads(seen.content).keys() == keys, seen.content
version = seen.headers["ETag"]
changed = must(update_webhook.sync(webhook.id, client=client, body=UpdateWebhook(description="tour"), if_match=version))
assert changed.description == "tour"
late = update_webhook.sync(webhook.id, client=client, body=UpdateWebhook(description="late"), if_match=version)
assert isinstance(late, Problem) and late.code == "precondition_failed", late
rotated = must(update_webhook.sync(webhook.id, client=client, body=UpdateWebhook(), rotate_secret=True))
assert rotated.secret != webhook.secret
tested = must(test_webhook.sync(webhook.id, client=client, body=TestWebhook()))
assert tested.status == "delivered" and len(received) == 1
assert any(one.id == webhook.id for one in must(list_webhooks.sync(client=client)))
event = PublishEvent.from_dict({"type": "humanization.completed", "data": {"job_id": "7d0c2f8a-4a7e-4f53-9d55-2f6f0c1b8e11"}})
key = str(uuid.uuid4())
published = must(publish_event.sync(client=client, body=event, idempotency_key=key))
again = publish_event.sync_detailed(client=client, body=event, idempotency_key=key)
assert must(again.parsed).id == published.id and again.headers["Idempotency-Replayed"] == "true"
assert len(must(get_event.sync(published.id, client=client)).deliveries) == 1
assert len(must(list_deliveries.sync(client=client, webhook_id=UUID(str(webhook.id))))) == 2
retried = must(retry_delivery.sync(tested.id, client=client, body=RetryDelivery()))
assert retried.attempt_count == 2
assert [one.trigger for one in must(list_attempts.sync(tested.id, client=client))] == ["test", "manual"]
span = ReplayWebhook(since=datetime.now(timezone.utc) - timedelta(hours=1), status=ReplayStatus.DELIVERED)
replayed = must(replay_webhook.sync(webhook.id, client=client, body=span))
assert not replayed.dry_run and replayed.count >= 1, replayed
for path in ("/v1/webhooks", "/v1/webhook_deliveries", "/v1/events", "/v1/event_types", f"/v1/webhooks/{webhook.id}/audit"):
    assert isinstance(client.get_httpx_client().get(path).json(), list), f"{path} is a bare array"
assert len(must(list_event_types.sync(client=client))) > 10
assert delete_webhook.sync_detailed(webhook.id, client=client).status_code == 204
gone = get_webhook.sync(webhook.id, client=client)
assert isinstance(gone, Problem) and gone.code == "not_found", gone
print("Python: the tour is complete")
