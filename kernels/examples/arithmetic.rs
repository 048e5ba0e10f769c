//! Prints `bench/results/arithmetic.md`: operations and bytes per token for Llama shapes, and the lower bounds on time
//! that follow from them.
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
/// Tokens per forward pass, which reads the weights once.
const BATCH: f64 = 8192.0;
/// Queries that share one read of a key from memory: the queries of a tile of `paged_attention.cu`. The query heads of
/// a KV head run at the same time and share the read too.
const TILE: f64 = 128.0;

const MODELS: [Model; 3] = [
    Model { name: "8B", hidden: 4096.0, layers: 32.0, heads: 32.0, kv_heads: 8.0, mlp: 14_336.0 },
    Model { name: "70B", hidden: 8192.0, layers: 80.0, heads: 64.0, kv_heads: 8.0, mlp: 28_672.0 },
    Model { name: "405B", hidden: 16_384.0, layers: 126.0, heads: 128.0, kv_heads: 8.0, mlp: 53_248.0 },
];

/// Dense bf16 operations per second and bytes per second, from the data sheets (SXM).
const GPUS: [(&str, f64, f64); 2] = [("H100", 989.4e12, 3.35e12), ("H200", 989.4e12, 4.8e12)];

/// The cost of one token, summed over all layers; the head and the embedding count once.
struct Cost {
    kernel: &'static str,
    operations: f64,
    bytes: f64,
}

impl Cost {
    /// Returns the cost of `times` bf16 products of a row of `n` values with weights `[n][m]`: two operations per
    /// weight, and one read of the weights per pass.
    fn product(kernel: &'static str, times: f64, n: f64, m: f64, out_bytes: f64) -> Self {
        let bytes = 2.0 * n * m / BATCH + 2.0 * n + out_bytes * m;
        Self { kernel, operations: times * 2.0 * n * m, bytes: times * bytes }
    }

    /// Returns the cost of reading or writing `values` bf16 values `times` times, without operations.
    fn moved(kernel: &'static str, times: f64, values: f64) -> Self {
        Self { kernel, operations: 0.0, bytes: times * 2.0 * values }
    }

    /// Returns the shortest possible time on a GPU in seconds, and the resource that bounds it.
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

    /// Returns the number of weights in all layers.
    fn layer_weights(&self) -> f64 {
        self.layers * (self.hidden * (2.0 * self.query() + self.kv()) + 3.0 * self.hidden * self.mlp)
    }

    /// Returns the costs per token of a document of `t` tokens, all scored.
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

/// Writes each model's operations and cached bytes per token.
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
    _ = writeln!(page, "\n## {}, T = 8192: each kernel's floor in microseconds per token\n", model.name);
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
    _ = writeln!(page, "\n## Tokens per second per GPU, nothing cached, every token scored\n");
    _ = writeln!(page, "From the sum of the kernels' floors; in parentheses, from the products' floors only.\n");
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
# Arithmetic: the cost of a token, and floors on its time

Printed by `cargo run -q -p surprisal-kernels --example arithmetic`; nothing here is measured. Shapes are those of
Llama 3.1: head size 128, vocabulary 128256; weights, activations and KV cache in bf16.

- A product of a row of n with weights [n][m]: 2 n m operations. It reads 2 n m / 8192 bytes of weights (a pass has 8192
  tokens) and 2 n bytes of input, and writes 2 m bytes of output (4 m for logits, which are f32).
- Attention in a document of T tokens, T / 2 keys per query on average: 4 x heads x 128 x T / 2 operations. It moves 2
  bytes for each value of the query and the output, and reads T / 2 keys and values once per 128 queries.
- The other kernels move each value once. RMSNorm runs twice per layer; it reads x and residual, and writes residual and
  result.
- A floor is the larger of operations / peak and bytes / bandwidth. H100: 989.4 TFLOP/s, 3.35 TB/s; H200: 989.4 TFLOP/s,
  4.8 TB/s (dense bf16, from the data sheets).

## Operations per token (GFLOP), and bytes per token in the KV cache

";

const TAIL: &str = "
## Conclusions

- Products and attention are bound by compute, everything else by memory. On an H100 the memory-bound kernels take 10%
  of the time at 8B, 5% at 70B and 3% at 405B. Moving values fewer times can save no more than that.
- Logits in f32 are the largest stream of the head. A tile of 64 rows takes 33 MB, which fits in the L2 cache of either
  GPU (50 MB), so logits need not reach memory at all.
- Decode has a second bound: a pass reads all weights, 2 bytes each, however few tokens it has. A pass needs at least
  295 tokens on an H100 (989.4e12 / 3.35e12), or 206 on an H200, to keep the tensor cores busy.
- FP8 products (twice the peak) halve the products' floors. Quantizing moves 3 bytes per value.
- Larger models need more than one GPU. Their tokens per second per GPU do not include the time of communication
  between GPUs.
";

fn main() {
    print!("{}", page());
}
