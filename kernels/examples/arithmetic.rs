//! Operations and bytes a token for Llama shapes, and the floors they set: prints `bench/results/arithmetic.md`.
//!
//! `cargo run -q -p surprisal-kernels --example arithmetic > bench/results/arithmetic.md`

use std::fmt::Write as _;

struct Model {
    name: &'static str,
    hidden: f64,
    layers: f64,
    heads: f64,
    kv_heads: f64,
    mlp: f64,
}

const HEAD_SIZE: f64 = 128.0;
const VOCABULARY: f64 = 128_256.0;
/// Tokens of one forward pass: what weights are read once for.
const BATCH: f64 = 8192.0;
/// Queries that read a key from memory once: a tile of `paged_attention.cu`, whose heads of a group run together.
const TILE: f64 = 128.0;

const MODELS: [Model; 3] = [
    Model { name: "8B", hidden: 4096.0, layers: 32.0, heads: 32.0, kv_heads: 8.0, mlp: 14_336.0 },
    Model { name: "70B", hidden: 8192.0, layers: 80.0, heads: 64.0, kv_heads: 8.0, mlp: 28_672.0 },
    Model { name: "405B", hidden: 16_384.0, layers: 126.0, heads: 128.0, kv_heads: 8.0, mlp: 53_248.0 },
];

/// Dense bf16 operations and bytes a second, from the makers' data sheets (SXM).
const GPUS: [(&str, f64, f64); 2] = [("H100", 989.4e12, 3.35e12), ("H200", 989.4e12, 4.8e12)];

/// The cost of one token in all layers together (the head and the embedding: once).
struct Cost {
    kernel: &'static str,
    operations: f64,
    bytes: f64,
}

impl Cost {
    /// A product of rows of `n` with weights `[n][m]`: two operations a weight; weights read once a pass; bf16.
    fn product(kernel: &'static str, times: f64, n: f64, m: f64, out_bytes: f64) -> Self {
        let bytes = 2.0 * n * m / BATCH + 2.0 * n + out_bytes * m;
        Self { kernel, operations: times * 2.0 * n * m, bytes: times * bytes }
    }

    /// So many bf16 values read or written; operations do not count.
    fn moved(kernel: &'static str, times: f64, values: f64) -> Self {
        Self { kernel, operations: 0.0, bytes: times * 2.0 * values }
    }

    /// Seconds on a GPU, and what sets them.
    fn floor(&self, (_, peak, bandwidth): (&str, f64, f64)) -> (f64, &'static str) {
        let (compute, memory) = (self.operations / peak, self.bytes / bandwidth);
        if compute > memory { (compute, "compute") } else { (memory, "memory") }
    }
}

impl Model {
    fn query(&self) -> f64 {
        self.heads * HEAD_SIZE
    }

    fn kv(&self) -> f64 {
        2.0 * self.kv_heads * HEAD_SIZE
    }

    /// Weights of all layers.
    fn layer_weights(&self) -> f64 {
        self.layers * (self.hidden * (2.0 * self.query() + self.kv()) + 3.0 * self.hidden * self.mlp)
    }

    /// Every token of a document of `t` tokens, each scored.
    fn costs(&self, t: f64) -> Vec<Cost> {
        let (l, h, q, kv, mlp) = (self.layers, self.hidden, self.query(), self.kv(), self.mlp);
        let keys = t / 2.0;
        vec![
            Cost::moved("embedding", 1.0, 2.0 * h),
            Cost::moved("rms_norm, residual", 2.0 * l, 4.0 * h),
            Cost::product("qkv product", l, h, q + kv, 2.0),
            Cost::moved("kv_cache", l, 2.0 * (q + kv)),
            Cost {
                kernel: "paged_attention",
                operations: l * 4.0 * q * keys,
                bytes: l * 2.0 * (2.0 * q + keys * kv / TILE),
            },
            Cost::product("output product", l, q, h, 2.0),
            Cost::product("gate and up product", l, h, 2.0 * mlp, 2.0),
            Cost::moved("silu_mul", l, 3.0 * mlp),
            Cost::product("down product", l, mlp, h, 2.0),
            Cost::product("head product, f32 logits", 1.0, h, VOCABULARY, 4.0),
            Cost { kernel: "logprobs", operations: 0.0, bytes: 4.0 * VOCABULARY },
        ]
    }
}

/// Returns the whole page.
pub fn page() -> String {
    let mut page = String::from(HEAD);
    write_operations(&mut page);
    for model in &MODELS {
        write_floors(&mut page, model);
    }
    write_rates(&mut page);
    page + TAIL
}

/// Writes each model's operations and cached bytes a token.
fn write_operations(page: &mut String) {
    _ = writeln!(page, "| model | layers' weights | products | head | attention, T = 2048 | T = 8192 | KV bytes |");
    _ = writeln!(page, "|---|---|---|---|---|---|---|");
    for model in &MODELS {
        let attention = |t: f64| model.layers * 2.0 * model.query() * t / 1e9;
        _ = writeln!(
            page,
            "| {} | {:.2}e9 | {:.2} | {:.2} | {:.2} | {:.2} | {:.0} |",
            model.name,
            model.layer_weights() / 1e9,
            2.0 * model.layer_weights() / 1e9,
            2.0 * model.hidden * VOCABULARY / 1e9,
            attention(2048.0),
            attention(8192.0),
            2.0 * model.layers * model.kv(),
        );
    }
}

/// Writes the floor of each kernel of a model.
fn write_floors(page: &mut String, model: &Model) {
    let costs = model.costs(8192.0);
    _ = writeln!(page, "\n## {}, T = 8192: each kernel's floor, microseconds a token\n", model.name);
    _ = writeln!(page, "| kernel | MFLOP | kB | H100 | H200 | bound by |\n|---|---|---|---|---|---|");
    for cost in &costs {
        let [(h100, bound), (h200, other)] = GPUS.map(|gpu| cost.floor(gpu));
        let bound = if bound == other { bound.to_owned() } else { format!("{bound}; {other} on H200") };
        let (operations, bytes) = (cost.operations / 1e6, cost.bytes / 1e3);
        let (h100, h200) = (h100 * 1e6, h200 * 1e6);
        _ = writeln!(page, "| {} | {operations:.1} | {bytes:.1} | {h100:.3} | {h200:.3} | {bound} |", cost.kernel);
    }
    let sum = |gpu| costs.iter().map(|cost| cost.floor(gpu).0).sum::<f64>() * 1e6;
    _ = writeln!(page, "| sum | | | {:.3} | {:.3} | |", sum(GPUS[0]), sum(GPUS[1]));
}

/// Writes the rates that the floors allow.
fn write_rates(page: &mut String) {
    _ = writeln!(page, "\n## Tokens a second and GPU, nothing cached, every token scored\n");
    _ = writeln!(page, "The sum of the kernels' floors; in brackets the products alone.\n");
    _ = writeln!(page, "| model | T | H100 | H200 |\n|---|---|---|---|");
    for (model, t) in MODELS.iter().flat_map(|model| [2048.0, 8192.0].map(|t| (model, t))) {
        let rate = |gpu, all: bool| {
            let costs = model.costs(t);
            let counted = costs.iter().filter(|cost| all || cost.kernel.contains("product"));
            1.0 / counted.map(|cost| cost.floor(gpu).0).sum::<f64>()
        };
        let [h100, h200] = GPUS.map(|gpu| format!("{:.0} ({:.0})", rate(gpu, true), rate(gpu, false)));
        _ = writeln!(page, "| {} | {t:.0} | {h100} | {h200} |", model.name);
    }
}

const HEAD: &str = "\
# Arithmetic: what a token costs, and the floors

Printed by `cargo run -q -p surprisal-kernels --example arithmetic`; nothing here is measured. Llama 3.1's shapes: head size
128, vocabulary 128256, bf16 weights, activations and KV.

- A product of a row of n with weights [n][m]: 2 n m operations; 2 n m / 8192 bytes of weights (a pass takes 8192
  tokens), 2 n of input, 2 m of output (4 m for logits, which are f32).
- Attention of a document of T tokens, T / 2 keys a query: 4 x heads x 128 x T / 2 operations; 2 bytes for each value of
  query, output, and of T / 2 keys and values once for 128 queries.
- The others move each value once: RMSNorm twice a layer, x and residual in, residual and result out.
- A floor is the larger of operations / peak and bytes / bandwidth. H100: 989.4 TFLOP/s, 3.35 TB/s; H200: 989.4, 4.8
  (dense bf16, data sheets).

## Operations a token (GFLOP), and bytes a token in the KV cache

";

const TAIL: &str = "
## What follows

- Products and attention are bound by compute, everything else by memory. On an H100 what is bound by memory has 10% of the
  whole at 8B, 5% at 70B, 3% at 405B: all that moving values fewer times could save.
- Logits in f32 are the largest stream of the head. In row tiles of 64 they take 33 MB, which the L2 of either GPU (50 MB)
  holds, so they need not reach memory at all.
- A second bound holds for decode: a pass of B tokens reads all weights, 2 bytes each, so on an H100 no fewer than 295 tokens
  (989.4e12 / 3.35e12) keep its tensor cores busy; on an H200, 206.
- FP8 products (twice the peak) halve the products' floors; quantising costs 3 bytes a value moved.
- Larger models need more than one GPU; tokens a second and GPU then leave out what the GPUs tell each other.
";

fn main() {
    print!("{}", page());
}
