// The adapter of gpt2.mjs, by the protocol of docs/subjects.md: refgen check "node docs/adapters/adapter.mjs"
import readline from "node:readline";
import { GPT2 } from "./gpt2.mjs";

class Missing extends Error {} // something that is not there yet: skipped, not wrong
let model;

function check(ids) { // what a network cannot compute is an error, not an answer
  const { n_positions, vocab_size } = model.config;
  if (ids.length < 1 || ids.length > n_positions) throw new RangeError(`${ids.length} tokens, must be 1 to ${n_positions}`);
  if (ids.some((id) => !(id >= 0 && id < vocab_size))) throw new RangeError(`ids must be 0 to ${vocab_size - 1}`);
  if (!model.act) throw new Missing(`no ${model.config.activation_function}`);
  return ids;
}

function logits(ids, mask) { // padding is left out; its logits mean nothing
  const cache = [], nothing = new Array(model.config.vocab_size).fill(0);
  check(ids.filter((_, t) => mask[t]));
  return ids.map((id, t) => (mask[t] ? model.step(id, cache) : nothing));
}

function continued(prompt, max_new_tokens, ends) {
  const cache = [], new_ids = [];
  let z = check(prompt).map((id) => model.step(id, cache)).at(-1);
  for (;;) {
    new_ids.push(z.indexOf(Math.max(...z)));
    if (ends.includes(new_ids.at(-1))) return { new_ids, finish: "eos" };
    if (new_ids.length === max_new_tokens) return { new_ids, finish: "length" };
    if (prompt.length + new_ids.length > model.config.n_positions) return { new_ids, finish: "context" };
    z = model.step(new_ids.at(-1), cache);
  }
}

const ops = {
  hello: () => ({ protocol: 1, name: "gpt2.mjs", dtype: "float64", can: ["forward", "generate"] }),
  load: ({ model: folder }) => { model = new GPT2(folder); return {}; },
  forward: ({ input_ids, attention_mask, prefill }) => ({ // prefill changes nothing here: positions always come one by one
    logits: input_ids.map((ids, b) => logits(ids, attention_mask?.[b] ?? ids.map(() => 1))),
  }),
  generate: ({ input_ids, attention_mask, max_new_tokens = 20, eos_token_id = model.config.eos_token_id, pad_token_id, do_sample, ...others }) => {
    if (do_sample || Object.keys(others).length) throw new Missing(`no ${do_sample ? "sampling" : Object.keys(others)[0]}`);
    if (max_new_tokens < 1) throw new RangeError("max_new_tokens must be at least 1");
    const prompts = input_ids.map((ids, b) => ids.filter((_, t) => attention_mask?.[b][t] ?? 1));
    return { rows: prompts.map((prompt) => continued(prompt, max_new_tokens, [eos_token_id].flat())) };
  },
};

for await (const line of readline.createInterface({ input: process.stdin })) {
  const { id, op, ...request } = JSON.parse(line);
  if (op === "bye") break;
  try {
    console.log(JSON.stringify({ id, ...ops[op](request) }));
  } catch (error) {
    console.log(JSON.stringify(error instanceof Missing ? { id, skipped: error.message } : { id, error: error.name, message: error.message }));
  }
}
