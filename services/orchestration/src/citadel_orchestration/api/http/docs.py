"""The page at `/docs`: it shows the OpenAPI document and loads nothing from other servers."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Citadel API</title>
<style>
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
summary { cursor: pointer; padding: .4rem 0; }
summary code { font-weight: 600; }
details { border-bottom: 1px solid #8884; }
pre { overflow: auto; padding: .8rem; background: #8882; border-radius: .3rem; font-size: .85rem; }
.method { display: inline-block; min-width: 4rem; }
</style>
</head>
<body>
<h1>Citadel API</h1>
<p>The whole document: <a href="openapi.json">openapi.json</a></p>
<main id="routes">Loading&hellip;</main>
<script>
const make = (tag, text, ...children) => {
  const element = document.createElement(tag);
  if (text) element.textContent = text;
  element.append(...children);
  return element;
};
const show = value => make("pre", JSON.stringify(value, null, 2));
const resolve = (value, schemas) => {
  if (Array.isArray(value)) return value.map(item => resolve(item, schemas));
  if (value === null || typeof value !== "object") return value;
  if (value.$ref) return resolve(schemas[value.$ref.split("/").pop()], schemas);
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, resolve(item, schemas)]));
};
const operation = (path, method, entry, schemas) => {
  const verb = make("span", method.toUpperCase());
  verb.className = "method";
  const title = make("summary", "", make("code", "", verb, path), " \\u2014 " + (entry.summary || ""));
  const details = make("details", "", title, make("p", entry.description || ""));
  if (entry.parameters) details.append(make("h4", "Parameters"), show(entry.parameters));
  const body = entry.requestBody && entry.requestBody.content["application/json"];
  if (body) details.append(make("h4", "Body"), show(resolve(body.schema, schemas)));
  for (const [status, response] of Object.entries(entry.responses || {})) {
    details.append(make("h4", status + " " + response.description));
    for (const content of Object.values(response.content || {})) details.append(show(resolve(content.schema, schemas)));
  }
  return details;
};
fetch("openapi.json").then(answer => answer.json()).then(api => {
  const routes = document.getElementById("routes");
  routes.textContent = "";
  for (const [path, methods] of Object.entries(api.paths))
    for (const [method, entry] of Object.entries(methods))
      routes.append(operation(path, method, entry, api.components.schemas));
});
</script>
</body>
</html>
"""
