// The smallest bodies, for what openapi-typescript makes of the document by its own defaults. Only type-checked.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

type Schemas = components["schemas"];

export const bodies: {
  create: Schemas["CreateWebhook"];
  update: Schemas["UpdateWebhook"];
  test: Schemas["TestWebhook"];
  replay: Schemas["ReplayWebhook"];
  publish: Schemas["PublishEvent"];
} = {
  create: { url: "https://example.com/hook", events: ["humanization.*"] },
  update: { enabled: false },
  test: {},
  replay: { since: "2026-04-23T10:00:00+00:00" },
  publish: { type: "job.failed", data: { job_id: "019db9c8-3900-7651-8317-1ff4a6a3a450", tags: ["any", 1] } },
};

/** A program as a newcomer writes it: each body where it belongs, and what was answered. */
export async function program(baseUrl: string): Promise<unknown> {
  const client = createClient<paths>({ baseUrl });
  const webhook = await client.POST("/v1/webhooks", { body: { url: "https://example.com/hook", events: ["job.failed"] } });
  const event = await client.POST("/v1/events", { body: { type: "job.failed", data: { job_id: "none" } } });
  const seen = await client.GET("/v1/events/{event_id}", { params: { path: { event_id: event.data?.id ?? "" } } });
  return [webhook.data?.secret, seen.data?.data["job_id"]];
}
