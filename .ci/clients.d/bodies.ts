// The smallest bodies, for what openapi-typescript makes of the document by its own defaults. Only type-checked.
import type { components } from "./schema.js";

type Schemas = components["schemas"];

export const bodies: {
  create: Schemas["CreateWebhook"];
  update: Schemas["UpdateWebhook"];
  test: Schemas["TestWebhook"];
  replay: Schemas["ReplayWebhook"];
} = {
  create: { url: "https://example.com/hook", events: ["humanization.*"] },
  update: { enabled: false },
  test: {},
  replay: { since: "2026-04-23T10:00:00+00:00" },
};
