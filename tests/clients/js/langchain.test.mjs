// LangChain.js, with its defaults: texts go out, a batch of 512 at a time.
import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { OpenAIEmbeddings } from "@langchain/openai";
import { FAULTS, LOCAL_MODEL, MODEL, TEXTS, assertVectors, citadel, documented, recover } from "./support.mjs";

// LangChain gives errors a code of its own where it knows the status
const ERRORS = {
  wrongKey: { status: 401, lc_error_code: "MODEL_AUTHENTICATION" },
  forbidden: { status: 403 },
  unknownModel: { status: 404, lc_error_code: "MODEL_NOT_FOUND" },
  emptyText: { status: 400 },
  tooLong: { status: 400 },
  bodyTooLarge: { status: 413 },
  rateLimited: { status: 429, lc_error_code: "MODEL_RATE_LIMIT" },
  unavailable: { status: 503 },
  clientTimeout: { name: "TimeoutError" },
};
const MISTAKES = ["wrongKey", "forbidden", "unknownModel", "emptyText", "tooLong", "bodyTooLarge"];
const connection = { configuration: { baseURL: citadel.main }, apiKey: citadel.key };

afterEach(recover);

test("the snippet's object embeds documents and queries", async () => {
  const { embeddings } = await documented("LangChain.js");
  await assertVectors(await embeddings.embedDocuments(TEXTS), TEXTS, LOCAL_MODEL);
  await assertVectors([await embeddings.embedQuery(TEXTS[1])], [TEXTS[1]], LOCAL_MODEL);
});

test("batches keep their order", async () => {
  const embeddings = new OpenAIEmbeddings({ ...connection, model: MODEL });
  const texts = Array.from({ length: 1300 }, (_, index) => `text ${index}`);
  const found = await embeddings.embedDocuments(texts);
  await assertVectors([0, 511, 512, 1299].map((n) => found[n]), [0, 511, 512, 1299].map((n) => texts[n]));
});

test("a query gets its prefix by a header", async () => {
  const configuration = { baseURL: citadel.main, defaultHeaders: { "Citadel-Input-Type": "query" } };
  const embeddings = new OpenAIEmbeddings({ configuration, apiKey: citadel.key, model: MODEL });
  await assertVectors([await embeddings.embedQuery("who")], ["search_query: who"]);
});

test("dimensions pass", async () => {
  const embeddings = new OpenAIEmbeddings({ ...connection, model: MODEL, dimensions: 64 });
  assert.equal((await embeddings.embedQuery("short")).length, 64);
});

for (const [fault, expected] of Object.entries(ERRORS))
  test(`${fault} has its status and code`, async () => {
    const { url, key, model, texts, timeout } = await FAULTS[fault]();
    const options = { configuration: { baseURL: url }, apiKey: key, model, timeout, maxRetries: 0 };
    await assert.rejects(new OpenAIEmbeddings(options).embedDocuments(texts), expected);
  });

for (const fault of MISTAKES)
  test(`${fault} is not repeated by default`, async () => {
    const { url, key, model, texts } = await FAULTS[fault]();
    let calls = 0;
    const counted = (...given) => ((calls += 1), fetch(...given));
    const embeddings = new OpenAIEmbeddings({ configuration: { baseURL: url, fetch: counted }, apiKey: key, model });
    await assert.rejects(embeddings.embedDocuments(texts), ERRORS[fault]);
    assert.equal(calls, 1);
  });
