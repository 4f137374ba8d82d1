// The openai package from npm: node openai_node.cjs URL MODEL
const assert = require("node:assert");
const { OpenAI } = require("openai");
const { zodResponseFormat } = require("openai/helpers/zod");
const { z } = require("zod");

const [url, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL: url, apiKey: "sk-none", maxRetries: 0 });
const chat = client.chat.completions;
const messages = [{ role: "user", content: "Tell me of a bee." }];
const asked = { model, messages, max_tokens: 12, temperature: 0 };
const Weather = z.object({ city: z.enum(["Oslo", "Rome"]), day: z.enum(["today", "tomorrow"]) });
const parameters = {
  type: "object",
  properties: { city: { enum: ["Oslo", "Rome"] }, day: { enum: ["today", "tomorrow"] } },
  required: ["city", "day"],
  additionalProperties: false,
};

async function whole() {
  const found = await chat.create(asked);
  assert.equal(found.choices[0].finish_reason, "length");
  assert.equal(found.usage.completion_tokens, 12);
  assert.ok(found._request_id);
  return found.choices[0].message.content;
}

async function streamed() {
  let text = "";
  let usage = null;
  for await (const chunk of await chat.create({ ...asked, stream: true, stream_options: { include_usage: true } })) {
    text += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, await whole());
  assert.equal(usage.completion_tokens, 12);
  return text;
}

async function helper() {
  const pieces = [];
  const stream = chat.stream(asked).on("content", (delta) => pieces.push(delta));
  const final = await stream.finalChatCompletion();
  assert.equal(pieces.join(""), final.choices[0].message.content);
  return `${pieces.length} pieces, ${pieces.join("")}`;
}

async function parsed() {
  const found = await chat.parse({
    model, messages, max_tokens: 100, response_format: zodResponseFormat(Weather, "weather"),
  });
  return JSON.stringify(Weather.parse(found.choices[0].message.parsed));
}

async function toolLoop() {
  const history = [...messages];
  const results = [];
  for (let round = 0; round < 5; round++) {
    const found = await chat.create({
      model, messages: history, max_tokens: 200, seed: round, tool_choice: "required", parallel_tool_calls: false,
      tools: [{ type: "function", function: { name: "weather", parameters } }],
    });
    const [choice] = found.choices;
    assert.equal(choice.finish_reason, "tool_calls");
    const [call] = choice.message.tool_calls;
    const { city, day } = Weather.parse(JSON.parse(call.function.arguments));
    results.push(`${city} ${day}`);
    history.push(choice.message, { role: "tool", tool_call_id: call.id, content: "sun" });
  }
  const last = await chat.create({ ...asked, messages: history });
  return `${results.join("; ")}; then ${last.choices[0].message.content}`;
}

async function completions() {
  const found = await client.completions.create({ model, prompt: ["A bee", "The sun"], max_tokens: 5, temperature: 0 });
  assert.deepEqual(found.choices.map((choice) => choice.index), [0, 1]);
  return JSON.stringify(found.choices.map((choice) => choice.text));
}

async function models() {
  const ids = [];
  for await (const found of client.models.list()) ids.push(found.id);
  assert.equal((await client.models.retrieve(model)).id, model);
  return ids.join(", ");
}

async function errors() {
  const found = [];
  for (const [status, code, body] of [
    [404, "model_not_found", { ...asked, model: "no-such-model" }],
    [400, "context_length_exceeded", { ...asked, messages: [{ role: "user", content: "bee ".repeat(20000) }] }],
    [400, "invalid_value", { ...asked, temperature: 9 }],
  ]) {
    await assert.rejects(chat.create({ ...body, stream: true }), (error) => {
      found.push(error.code);
      return error.status === status && error.code === code;
    });
  }
  return found.join(", ");
}

async function left() {
  await Promise.all(
    Array.from({ length: 8 }, async () => {
      for await (const chunk of await chat.create({ model, messages, stream: true }))
        if (chunk.choices[0]?.delta?.content) break;
    }),
  );
  return `8 streams left after their first word; then ${await whole()}`;
}

const jobs = {
  whole: ["an answer of 12 tokens", whole],
  stream: ["the same, streamed, with usage", streamed],
  helper: ["chat.completions.stream()", helper],
  parse: ["parse() into a zod object", parsed],
  "tool loop": ["five rounds of calls and results", toolLoop],
  completions: ["two prompts", completions],
  models: ["the list, and one", models],
  errors: ["an unknown model, a full context, a wrong field", errors],
  left: ["streams that are left behind", left],
};

(async () => {
  for (const [job, [asks, work]] of Object.entries(jobs)) {
    const told = { job, asked: asks, came: null, problem: null };
    try {
      told.came = await work();
    } catch (error) {
      told.problem = error.stack;
    }
    console.log(JSON.stringify(told));
  }
  process.exit(0);
})();
