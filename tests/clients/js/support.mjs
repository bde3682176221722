// The server under test, faults that it can be brought into, and the snippets of the documentation.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath, pathToFileURL } from "node:url";
import assert from "node:assert/strict";

export const citadel = JSON.parse(process.env.CITADEL_SERVER);
export const MODEL = "nomic-embed-text";
export const LOCAL_MODEL = "all-minilm";
export const TEXTS = ["A man is eating food.", "Grüße, 世界 🌍", "and a third"];
const PAGE = new URL("../../../docs/clients.md", import.meta.url);
const MARGIN_S = 3; // seconds of the server's minute that must be left for a request that shall be refused in it

export function post(body, url = citadel.main) {
  const headers = { authorization: `Bearer ${citadel.key}`, "content-type": "application/json" };
  return fetch(`${url}/embeddings`, { method: "POST", headers, body: JSON.stringify(body) });
}

// The vectors of texts by a plain request, as Float32Arrays.
export async function vectors(texts, model = MODEL, fields = {}) {
  const answer = await post({ input: texts, model, ...fields });
  assert.equal(answer.status, 200);
  return (await answer.json()).data.map((item) => Float32Array.from(item.embedding));
}

export async function assertVectors(found, texts, model = MODEL) {
  assert.deepEqual(found.map((vector) => Float32Array.from(vector)), await vectors(texts, model));
}

async function behave(mode) {
  await fetch(`${citadel.double}/_double/reset`, { method: "POST" });
  await fetch(`${citadel.double}/_double/behaviour`, { method: "POST", body: JSON.stringify({ mode }) });
}

// Make the double healthy, and wait until texts are embedded again.
export async function recover() {
  await behave("ok");
  while ((await post({ input: "well again", model: MODEL, cache_enabled: false })).status !== 200);
}

// Make the double healthy wherever the client waits for exactly `ms`; count how often it does.
export function recoverInsteadOfWaiting(t, ms) {
  const waited = { times: 0 };
  const original = globalThis.setTimeout;
  t.mock.method(globalThis, "setTimeout", (done, given, ...rest) => {
    if (given !== ms) return original(done, given, ...rest);
    waited.times += 1;
    return original(() => recover().then(done), 0);
  });
  return waited;
}

let number = 0;
const unseen = () => `new ${process.pid} ${number++}`;
const call = (given) => ({ url: citadel.main, key: citadel.key, model: MODEL, texts: ["a text"], ...given });

// Each brings the server into a fault and returns what a client is given.
export const FAULTS = {
  wrongKey: async () => call({ key: "wrong" }),
  forbidden: async () => call({ key: citadel.reader_key }),
  unknownModel: async () => call({ model: "unknown" }),
  emptyText: async () => call({ model: "bge-m3", texts: ["fine", ""] }),
  tooLong: async () => call({ model: "bge-m3", texts: ["fine", "[[too_long400]]"] }),
  bodyTooLarge: async () => call({ url: citadel.keyless, texts: ["long ".repeat(40_000)] }),
  rateLimited: async () => {
    for (let waits = 0; waits <= MARGIN_S; ) {
      const answer = await post({ input: "x", model: MODEL }, citadel.limited);
      waits = Number(answer.headers.get("retry-after") ?? 0);
    }
    return call({ url: citadel.limited });
  },
  unavailable: async () => (await behave("busy503"), call({ texts: [unseen()] })),
  failing: async () => (await behave("garbage_json"), call({ texts: [unseen()] })),
  clientTimeout: async () => (await behave("hang"), call({ texts: [unseen()], timeout: 300 })),
};

// Run a section's JavaScript snippet for a server and a key; return what it declares.
export async function documented(title, url = citadel.main, key = citadel.key) {
  const section = readFileSync(PAGE, "utf8").split(/^### /m).find((part) => part.startsWith(`${title}\n`));
  const text = section.match(/^```js\n(.*?)^```$/ms)[1];
  assert.ok(text.includes("http://127.0.0.1:8080/v1") && text.includes("YOUR-KEY"));
  const names = [...text.matchAll(/^const (?:\{ (.*?) \}|(\w+)) =/gm)].flatMap((found) => (found[1] ?? found[2]).split(", "));
  const program = text.replaceAll("http://127.0.0.1:8080/v1", url).replaceAll("YOUR-KEY", key);
  // beside node_modules, where its imports are found
  const folder = new URL("build/", import.meta.url);
  mkdirSync(folder, { recursive: true });
  const path = `${fileURLToPath(folder)}${title.replaceAll(/\W+/g, "-")}-${process.pid}.mjs`;
  writeFileSync(path, `${program}\nexport { ${names.join(", ")} };\n`);
  return import(pathToFileURL(path));
}
