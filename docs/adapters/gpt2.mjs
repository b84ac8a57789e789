// A GPT-2 in JavaScript, in float64, one token at a time. adapter.mjs lets refgen check it.
import fs from "node:fs";

const gelu = (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
const activations = { gelu_new: gelu, gelu_pytorch_tanh: gelu, relu: (x) => Math.max(x, 0),
                      silu: (x) => x / (1 + Math.exp(-x)), quick_gelu: (x) => x / (1 + Math.exp(-1.702 * x)) };
const dot = (a, b, from = 0) => { let y = 0; for (let i = 0; i < a.length; i++) y += a[i] * b[from + i]; return y; };
const sum = (a) => { let y = 0; for (const v of a) y += v; return y; };

export class GPT2 {
  constructor(folder) {
    const defaults = { layer_norm_epsilon: 1e-5, activation_function: "gelu_new", tie_word_embeddings: true, scale_attn_weights: true };
    this.config = { ...defaults, ...JSON.parse(fs.readFileSync(`${folder}/config.json`)) };
    const bytes = fs.readFileSync(`${folder}/model.safetensors`), start = 8 + Number(bytes.readBigUInt64LE(0));
    const floats = ([from, to]) => new Float32Array(bytes.buffer.slice(bytes.byteOffset + start + from, bytes.byteOffset + start + to));
    const { __metadata__, ...tensors } = JSON.parse(bytes.subarray(8, start));
    this.w = Object.fromEntries(Object.entries(tensors).map(([name, t]) => [name.replace(/^transformer\./, ""), floats(t.data_offsets)]));
    this.act = activations[this.config.activation_function];
  }
  linear(x, name) {
    const weight = this.w[`${name}.weight`], y = Float64Array.from(this.w[`${name}.bias`]), O = y.length;
    for (let i = 0; i < x.length; i++) for (let o = 0; o < O; o++) y[o] += x[i] * weight[i * O + o];
    return y;
  }
  norm(x, name) {
    const mean = sum(x) / x.length, variance = sum(x.map((v) => (v - mean) ** 2)) / x.length;
    const weight = this.w[`${name}.weight`], bias = this.w[`${name}.bias`], root = Math.sqrt(variance + this.config.layer_norm_epsilon);
    return x.map((v, i) => ((v - mean) / root) * weight[i] + bias[i]);
  }
  attend(q, { keys, values }, layer) {
    const { n_head: H, scale_attn_weights, scale_attn_by_inverse_layer_idx } = this.config, D = q.length / H, z = new Float64Array(q.length);
    const scale = (scale_attn_weights ? 1 / Math.sqrt(D) : 1) / (scale_attn_by_inverse_layer_idx ? layer + 1 : 1);
    for (let h = 0; h < H; h++) {
      const scores = keys.map((k) => scale * dot(q.subarray(h * D, h * D + D), k, h * D)), top = Math.max(...scores);
      const pattern = scores.map((s) => Math.exp(s - top)), total = sum(pattern);
      values.forEach((v, s) => { for (let d = h * D; d < h * D + D; d++) z[d] += (pattern[s] / total) * v[d]; });
    }
    return z;
  }
  step(id, cache) { // the logits behind one more token; the cache grows
    const C = this.config.n_embd, t = cache.length ? cache[0].keys.length : 0, add = (x, y) => x.map((v, i) => v + y[i]);
    let x = Float64Array.from({ length: C }, (_, i) => this.w["wte.weight"][id * C + i] + this.w["wpe.weight"][t * C + i]);
    for (let n = 0; n < this.config.n_layer; n++) {
      const qkv = this.linear(this.norm(x, `h.${n}.ln_1`), `h.${n}.attn.c_attn`), held = (cache[n] ??= { keys: [], values: [] });
      held.keys.push(qkv.subarray(C, 2 * C));
      held.values.push(qkv.subarray(2 * C));
      x = add(x, this.linear(this.attend(qkv.subarray(0, C), held, n), `h.${n}.attn.c_proj`));
      x = add(x, this.linear(this.linear(this.norm(x, `h.${n}.ln_2`), `h.${n}.mlp.c_fc`).map(this.act), `h.${n}.mlp.c_proj`));
    }
    x = this.norm(x, "ln_f");
    const head = this.w[this.config.tie_word_embeddings ? "wte.weight" : "lm_head.weight"];
    return Array.from({ length: this.config.vocab_size }, (_, v) => dot(x, head, v * C));
  }
}
