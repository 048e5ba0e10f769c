// Checks the official npm client of OpenAI: node openai_sdk.cjs URL EXPECTED
//
// EXPECTED is JSON with the model's name, a prompt's token ids, their greedy completion and the log-probabilities of all tokens.

const assert = require("node:assert/strict");
const OpenAI = require("openai");

const TOLERANCE = 1e-3;

async function main() {
  const [url, expected] = [process.argv[2], JSON.parse(process.argv[3])];
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
  const greedy = { model: expected.model, prompt: expected.ids, max_tokens: expected.tokens, temperature: 0 };

  const models = await client.models.list();
  assert.deepEqual(models.data.map((model) => model.id), [expected.model]);

  const echoed = await client.completions.create({ ...greedy, echo: true, logprobs: 1 });
  const found = echoed.choices[0].logprobs.token_logprobs;
  assert.equal(found.length, expected.logprobs.length + 1);
  assert.equal(found[0], null);
  expected.logprobs.forEach((value, at) => {
    assert.ok(Math.abs(found[at + 1] - value) < TOLERANCE, `token ${at + 1}: ${found[at + 1]} is not ${value}`);
  });

  // The client sends null for an option that an application sets to null.
  const neutral = { echo: null, logprobs: null, n: null, seed: null, stop: null, stream: null, suffix: null, top_p: null };
  assert.equal((await client.completions.create({ ...greedy, ...neutral })).choices[0].text, expected.text);

  let text = "";
  let usage = null;
  for await (const chunk of await client.completions.create({ ...greedy, stream: true, stream_options: { include_usage: true } })) {
    text += chunk.choices[0]?.text ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, expected.text);
  assert.equal(usage.completion_tokens, expected.tokens);

  await assert.rejects(client.completions.create({ ...greedy, max_tokens: 1000 }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError, `${error}`);
    assert.match(error.message, /maximum context length is 512 tokens/, "the error's text does not state the limit");
    return true;
  });
  console.log(`openai for Node: ${found.length} log-probabilities, null values, a stream and an error are as the client expects`);
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
