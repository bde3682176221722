// The AI SDK (`ai`) with its providers `@ai-sdk/openai-compatible` and `@ai-sdk/openai`.
import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { APICallError, embed, embedMany } from "ai";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import {
  FAULTS,
  LOCAL_MODEL,
  MODEL,
  TEXTS,
  assertVectors,
  citadel,
  documented,
  recover,
  recoverInsteadOfWaiting,
} from "./support.mjs";

const ERRORS = {
  wrongKey: [401, false, "unauthorized"],
  forbidden: [403, false, "forbidden"],
  unknownModel: [404, false, "model_not_found"],
  emptyText: [400, false, "invalid_input"],
  tooLong: [400, false, "text_too_long"],
  bodyTooLarge: [413, false, "body_too_large"],
  rateLimited: [429, true, "rate_limited"],
  unavailable: [503, true, "backend_unavailable"],
  failing: [502, true, "backend_failed"],
};
const providers = {
  "openai-compatible": ({ url, key }) => createOpenAICompatible({ name: "citadel", baseURL: url, apiKey: key }),
  openai: ({ url, key }) => createOpenAI({ baseURL: url, apiKey: key }),
};
const here = { url: citadel.main, key: citadel.key };

afterEach(recover);

test("the snippet embeds", async () => {
  const { embeddings } = await documented("AI SDK");
  await assertVectors(embeddings, ["first text", "second text"], LOCAL_MODEL);
});

for (const [name, create] of Object.entries(providers)) {
  const model = (id, call = here) => create(call).embeddingModel(id);

  test(`${name}: one value`, async () => {
    const { embedding, usage } = await embed({ model: model(MODEL), value: TEXTS[1] });
    await assertVectors([embedding], [TEXTS[1]]);
    assert.ok(usage.tokens >= 0);
  });

  test(`${name}: a query gets its prefix by a header`, async () => {
    const headers = { "Citadel-Input-Type": "query" };
    const { embedding } = await embed({ model: model(MODEL), value: "who", headers });
    await assertVectors([embedding], ["search_query: who"]);
  });

  test(`${name}: calls in parallel keep the order of a long list`, async () => {
    const values = Array.from({ length: 2500 }, (_, index) => `value ${index}`);
    const { embeddings } = await embedMany({ model: model(MODEL), values });
    assert.equal(embeddings.length, values.length);
    const picked = [0, 1, 2047, 2048, 2499];
    await assertVectors(picked.map((n) => embeddings[n]), picked.map((n) => values[n]));
  });

  for (const [fault, [statusCode, isRetryable, code]] of Object.entries(ERRORS))
    test(`${name}: ${fault} is an APICallError with its status`, async () => {
      const call = await FAULTS[fault]();
      await assert.rejects(embedMany({ model: model(call.model, call), values: call.texts, maxRetries: 0 }), (error) => {
        assert.ok(APICallError.isInstance(error), String(error));
        assert.deepEqual([error.statusCode, error.isRetryable], [statusCode, isRetryable]);
        assert.equal(error.data?.error.code, code);
        return true;
      });
    });

  test(`${name}: a call that is given up is an AbortError`, async () => {
    const call = await FAULTS.clientTimeout();
    const abortSignal = AbortSignal.timeout(call.timeout);
    await assert.rejects(embedMany({ model: model(MODEL, call), values: call.texts, abortSignal }), /TimeoutError|aborted/);
  });
}

test("a retry waits as long as the server says, and succeeds once the backend is back", async (t) => {
  const call = await FAULTS.unavailable();
  const waited = recoverInsteadOfWaiting(t, 5000);
  const model = providers["openai-compatible"](call).embeddingModel(MODEL);
  assert.equal((await embedMany({ model, values: call.texts })).embeddings.length, 1);
  assert.equal(waited.times, 1);
});
