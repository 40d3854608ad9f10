// One full tour with the client that openapi-typescript and openapi-fetch make of the document.
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

const { BASE, TOKEN } = process.env;
const client = createClient<paths>({ baseUrl: BASE!, headers: { Authorization: `Bearer ${TOKEN}` } });

let received = 0;
const receiver = createServer((request, response) => {
  received += 1;
  request.resume().on("end", () => response.end("thanks"));
}).listen(0, "127.0.0.1");
await new Promise((resolve) => receiver.once("listening", resolve));
const url = `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/`;

/** What the server answered, or an end of the tour. */
function must<T>(step: string, answer: { data?: T; error?: unknown; response: Response }): T {
  if (answer.error !== undefined) throw new Error(`${step}: ${answer.response.status} ${JSON.stringify(answer.error)}`);
  return answer.data as T;
}

function check(truth: boolean, what: string): void {
  if (!truth) throw new Error(what);
}

const webhook = must("create", await client.POST("/v1/webhooks", { body: { url, events: ["humanization.*"] } }));
const path = { webhook_id: webhook.id };
check(webhook.secret!.startsWith("whsec_"), "a secret is issued");
const seen = await client.GET("/v1/webhooks/{webhook_id}", { params: { path } });
check(Object.keys(must("get", seen)).sort().join() === "created_at,enabled,events,id,object,updated_at,url", "a plain webhook has seven keys");
const header = { "If-Match": seen.response.headers.get("ETag")! };
const describe = (description: string) => client.PATCH("/v1/webhooks/{webhook_id}", { params: { path, header }, body: { description } });
check(must("patch", await describe("tour")).description === "tour", "the description changed");
check((await describe("late")).error?.code === "precondition_failed", "a version that is gone is not changed");
const rotated = must("rotate", await client.PATCH("/v1/webhooks/{webhook_id}", { params: { path, query: { rotate_secret: true } } }));
check(rotated.secret !== webhook.secret, "the secret is another");
const tested: components["schemas"]["Delivery"] =
  must("test", await client.POST("/v1/webhooks/{webhook_id}/test", { params: { path }, body: {} }));
check(tested.status === "delivered" && received === 1, "the test arrived");
check(must("list", await client.GET("/v1/webhooks")).some(({ id }) => id === webhook.id), "the webhook is listed");
const key = randomUUID();
const publish = () => client.POST("/v1/events", {
  params: { header: { "Idempotency-Key": key } },
  body: { type: "humanization.completed", data: { job_id: "7d0c2f8a-4a7e-4f53-9d55-2f6f0c1b8e11" } },
});
const event = must("publish", await publish());
const again = await publish();
check(must("publish again", again).id === event.id, "it is the same event");
check(again.response.headers.get("Idempotency-Replayed") === "true", "it was answered before");
check(must("event", await client.GET("/v1/events/{event_id}", { params: { path: { event_id: event.id } } })).deliveries.length === 1, "it is owed");
const deliveries = must("deliveries", await client.GET("/v1/webhook_deliveries", { params: { query: { webhook_id: webhook.id } } }));
check(deliveries.length === 2, "both deliveries are listed");
const delivery = { delivery_id: tested.id };
const retried = must("retry", await client.POST("/v1/webhook_deliveries/{delivery_id}/retry", { params: { path: delivery }, body: {} }));
check(retried.attempt_count === 2, "the retry is counted");
const attempts = must("attempts", await client.GET("/v1/webhook_deliveries/{delivery_id}/attempts", { params: { path: delivery } }));
check(attempts.map(({ trigger }) => trigger).join() === "test,manual", "both attempts are listed");
const since = new Date(Date.now() - 3_600_000).toISOString();
const replayed = must("replay", await client.POST("/v1/webhooks/{webhook_id}/replay", {
  params: { path }, body: { since, status: "delivered" },
}));
check(!replayed.dry_run && replayed.count >= 1, "what arrived is replayed");
const lists = [client.GET("/v1/webhooks"), client.GET("/v1/webhook_deliveries"), client.GET("/v1/events"),
  client.GET("/v1/event_types"), client.GET("/v1/webhooks/{webhook_id}/audit", { params: { path } })];
for (const list of await Promise.all<{ data?: unknown[] }>(lists)) check(Array.isArray(list.data), "a list is a bare array");
check(must("event types", await client.GET("/v1/event_types")).length > 10, "the catalog is there");
must("delete", await client.DELETE("/v1/webhooks/{webhook_id}", { params: { path } }));
const gone = await client.GET("/v1/webhooks/{webhook_id}", { params: { path } });
check(gone.error?.code === "not_found", "it is gone");
receiver.close();
console.log("TypeScript: the tour is complete");
