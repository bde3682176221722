// The `openai` package for JavaScript, with its defaults.
import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import OpenAI, { AzureOpenAI } from "openai";
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
  wrongKey: [OpenAI.AuthenticationError, "unauthorized"],
  forbidden: [OpenAI.PermissionDeniedError, "forbidden"],
  unknownModel: [OpenAI.NotFoundError, "model_not_found"],
  emptyText: [OpenAI.BadRequestError, "invalid_input"],
  tooLong: [OpenAI.BadRequestError, "text_too_long"],
  bodyTooLarge: [OpenAI.APIError, "body_too_large"],
  rateLimited: [OpenAI.RateLimitError, "rate_limited"],
  unavailable: [OpenAI.InternalServerError, "backend_unavailable"],
  failing: [OpenAI.InternalServerError, "backend_failed"],
  clientTimeout: [OpenAI.APIConnectionTimeoutError, undefined],
};
const client = new OpenAI({ baseURL: citadel.main, apiKey: citadel.key });

afterEach(recover);

test("the snippet embeds", async () => {
  const { answer } = await documented("openai (JavaScript)");
  await assertVectors(answer.data.map((item) => item.embedding), ["first text", "second text"], LOCAL_MODEL);
});

for (const model of [MODEL, LOCAL_MODEL])
  test(`vectors of ${model} are those of a plain request`, async () => {
    const answer = await client.embeddings.create({ model, input: TEXTS });
    assert.deepEqual(answer.data.map((item) => item.index), [0, 1, 2]);
    await assertVectors(answer.data.map((item) => item.embedding), TEXTS, model);
    const one = await client.embeddings.create({ model, input: TEXTS[0], encoding_format: "float" });
    await assertVectors([one.data[0].embedding], [TEXTS[0]], model);
  });

test("a query gets its prefix by an extra field", async () => {
  const answer = await client.embeddings.create({ model: MODEL, input: "who", input_type: "query" });
  await assertVectors([answer.data[0].embedding], ["search_query: who"]);
});

test("a list of thousands keeps its order", async () => {
  const texts = Array.from({ length: 2000 }, (_, index) => `text ${index}`);
  const { data } = await client.embeddings.create({ model: MODEL, input: texts });
  await assertVectors([data[0].embedding, data[1999].embedding], [texts[0], texts[1999]]);
});

test("many calls at once get their own vectors", async () => {
  const texts = Array.from({ length: 60 }, (_, index) => `at once ${index}`);
  const answers = await Promise.all(texts.map((input) => client.embeddings.create({ model: MODEL, input })));
  await assertVectors(answers.map((answer) => answer.data[0].embedding), texts);
});

test("models are listed and retrieved", async () => {
  const names = [];
  for await (const model of client.models.list()) {
    names.push(model.id);
    assert.deepEqual(await client.models.retrieve(model.id), model);
  }
  assert.ok(names.includes(MODEL) && names.includes(LOCAL_MODEL));
  await assert.rejects(client.models.retrieve("library/unknown:latest"), OpenAI.NotFoundError);
});

test("Azure's client names the model as a deployment", async () => {
  const endpoint = citadel.main.replace("/v1", "");
  const azure = new AzureOpenAI({ endpoint, apiKey: citadel.key, apiVersion: "2024-10-21" });
  const answer = await azure.embeddings.create({ model: LOCAL_MODEL, input: TEXTS });
  await assertVectors(answer.data.map((item) => item.embedding), TEXTS, LOCAL_MODEL);
});

for (const [origin, allowed] of [[citadel.origin, true], ["https://other.example", false]])
  test(`a page of ${origin} ${allowed ? "may" : "may not"} send what the client sends in a browser`, async () => {
    const asked = {};
    const browser = new OpenAI({
      baseURL: citadel.main,
      apiKey: citadel.key,
      dangerouslyAllowBrowser: true,
      maxRetries: 0,
      fetch: async (url, init) => {
        const names = [...new Headers(init.headers).keys()].join(",");
        const ask = { "access-control-request-method": init.method, "access-control-request-headers": names };
        asked.preflight = await fetch(url, { method: "OPTIONS", headers: { origin, ...ask } });
        asked.names = names.split(",");
        init.headers.set("origin", origin);
        return (asked.answer = await fetch(url, init));
      },
    });
    await assert.rejects(browser.embeddings.create({ model: "unknown", input: "a" }), OpenAI.NotFoundError);
    const { preflight, answer, names } = asked;
    assert.equal(preflight.ok, allowed);
    const shown = [preflight, answer].map((each) => each.headers.get("access-control-allow-origin"));
    assert.deepEqual(shown, allowed ? [origin, origin] : [null, null]);
    if (!allowed) return;
    const taken = preflight.headers.get("access-control-allow-headers").toLowerCase().split(/,\s*/);
    assert.deepEqual(names.filter((name) => !taken.includes(name)), []);
    assert.match(answer.headers.get("access-control-expose-headers").toLowerCase(), /retry-after.*x-should-retry/);
  });

for (const [fault, [expected, code]] of Object.entries(ERRORS))
  test(`${fault} has its class and code`, async () => {
    const { url, key, model, texts, timeout } = await FAULTS[fault]();
    const failing = new OpenAI({ baseURL: url, apiKey: key, timeout, maxRetries: 0 });
    await assert.rejects(failing.embeddings.create({ model, input: texts }), (error) => {
      assert.ok(error instanceof expected, `${error.constructor.name}: ${error.message}`);
      assert.equal(error.code, code);
      if (code) assert.ok(error.requestID);
      return true;
    });
  });

test("a retry waits as long as the server says, and succeeds once the backend is back", async (t) => {
  const { url, key, texts } = await FAULTS.unavailable();
  const waited = recoverInsteadOfWaiting(t, 5000);
  const answer = await new OpenAI({ baseURL: url, apiKey: key }).embeddings.create({ model: MODEL, input: texts });
  assert.equal(answer.data.length, 1);
  assert.equal(waited.times, 1);
});
