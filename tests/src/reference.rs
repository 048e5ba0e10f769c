//! An independent implementation of Llama in float64, with plain loops and without a cache or tiles. It is slow, but
//! easy to check against the papers.

use crate::tiny::{Tensors, TinyLlama};

type Matrix = Vec<Vec<f64>>;

/// Returns `ln p(tokens[i] | tokens[..i])` for each i from 1 on, in nats.
pub fn logprobs(model: &TinyLlama, tensors: &Tensors, tokens: &[u32]) -> Vec<f64> {
    let all = distributions(model, tensors, tokens);
    all.iter().zip(&tokens[1..]).map(|(row, &target)| row[target as usize]).collect()
}

/// Returns `ln p(v | tokens[..i])` for each i from 1 on and each v of the vocabulary, in nats.
pub fn distributions(model: &TinyLlama, tensors: &Tensors, tokens: &[u32]) -> Vec<Vec<f64>> {
    distributions_with(model, tensors, tokens, |x| x)
}

/// Returns the same as [`logprobs`] for a model that rounds the inputs of the layers' matrices to FP8, with one scale
/// per token.
pub fn fp8_logprobs(model: &TinyLlama, tensors: &Tensors, tokens: &[u32]) -> Vec<f64> {
    let all = distributions_with(model, tensors, tokens, in_fp8);
    all.iter().zip(&tokens[1..]).map(|(row, &target)| row[target as usize]).collect()
}

/// Rounds each row to e4m3 values times the row's scale, which is its largest magnitude divided by 448.
fn in_fp8(mut x: Matrix) -> Matrix {
    let size = |byte: u8| match (i32::from(byte >> 3), f64::from(byte & 7) / 8.0) {
        (0, mantissa) => mantissa * 2f64.powi(-6),
        (exponent, mantissa) => (1.0 + mantissa) * 2f64.powi(exponent - 7),
    };
    let sizes: Vec<f64> = (0..0x7f).map(size).collect();
    for row in &mut x {
        let scale = row.iter().fold(0f64, |largest, x| largest.max(x.abs())) / 448.0;
        for x in row.iter_mut().filter(|x| **x != 0.0) {
            let above = sizes.partition_point(|&size| size < x.abs() / scale).clamp(1, sizes.len() - 1);
            let (low, high) = (sizes[above - 1], sizes[above]);
            let nearest = if x.abs() / scale - low < high - x.abs() / scale { low } else { high };
            *x = x.signum() * nearest * scale;
        }
    }
    x
}

fn distributions_with(
    model: &TinyLlama,
    tensors: &Tensors,
    tokens: &[u32],
    read: impl Fn(Matrix) -> Matrix,
) -> Vec<Vec<f64>> {
    let get = |name: &str| matrix(tensors, name);
    let embedding = get("model.embed_tokens.weight");
    let head = if model.tied { embedding.clone() } else { get("lm_head.weight") };
    let mut x: Matrix = tokens.iter().map(|&token| embedding[token as usize].clone()).collect();
    for layer in 0..model.layers {
        let weight = |name: &str| get(&format!("model.layers.{layer}.{name}.weight"));
        let normed = read(norm(&x, &weight("input_layernorm")[0]));
        let heads = |name: &str| split(&product(&normed, &weight(name)), model.head_dim);
        let (q, k, v) = (heads("self_attn.q_proj"), heads("self_attn.k_proj"), heads("self_attn.v_proj"));
        let attended = read(attention(model, &rotate(&q), &rotate(&k), &v));
        add(&mut x, &product(&attended, &weight("self_attn.o_proj")));

        let normed = read(norm(&x, &weight("post_attention_layernorm")[0]));
        let (gate, up) = (product(&normed, &weight("mlp.gate_proj")), product(&normed, &weight("mlp.up_proj")));
        let silu = |g: f64, u: f64| g / (1.0 + (-g).exp()) * u;
        let inner: Matrix =
            gate.iter().zip(&up).map(|(g, u)| g.iter().zip(u).map(|(&g, &u)| silu(g, u)).collect()).collect();
        add(&mut x, &product(&read(inner), &weight("mlp.down_proj")));
    }
    let logits = product(&norm(&x, &get("model.norm.weight")[0]), &head);
    let distribution = |row: &Vec<f64>| {
        let total = log_sum_exp(row);
        row.iter().map(|logit| logit - total).collect()
    };
    logits[..tokens.len() - 1].iter().map(distribution).collect()
}

/// Returns the rows of a tensor; a vector is one row.
fn matrix(tensors: &Tensors, name: &str) -> Matrix {
    let (shape, values) = &tensors[name];
    let columns = shape[shape.len() - 1];
    values.chunks(columns).map(|row| row.iter().map(|&x| f64::from(x)).collect()).collect()
}

fn product(a: &Matrix, w: &Matrix) -> Matrix {
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum();
    a.iter().map(|row| w.iter().map(|w| dot(row, w)).collect()).collect()
}

fn add(x: &mut Matrix, y: &Matrix) {
    for (x, y) in x.iter_mut().flatten().zip(y.iter().flatten()) {
        *x += y;
    }
}

fn norm(x: &Matrix, weight: &[f64]) -> Matrix {
    let scale = |row: &[f64]| 1.0 / (row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64 + 1e-5).sqrt();
    let normed = |row: &Vec<f64>, scale: f64| row.iter().zip(weight).map(|(x, w)| x * scale * w).collect();
    x.iter().map(|row| normed(row, scale(row))).collect()
}

/// Converts `[token][head * dim]` to `[head][token][dim]`.
fn split(x: &Matrix, dim: usize) -> Vec<Matrix> {
    let heads = x[0].len() / dim;
    (0..heads).map(|h| x.iter().map(|row| row[h * dim..][..dim].to_vec()).collect()).collect()
}

/// Applies RoPE (RoFormer, equation 34) in the half-split order of Llama checkpoints, with angles in f32 as in
/// training.
fn rotate(heads: &[Matrix]) -> Vec<Matrix> {
    let turn = |position: usize, x: &[f64]| {
        let half = x.len() / 2;
        let frequency = |i: usize| 1.0 / 10000f32.powf((i % half) as f32 / half as f32);
        let angle = |i: usize| f64::from(position as f32 * frequency(i));
        let partner = |i: usize| if i < half { -x[i + half] } else { x[i - half] };
        (0..x.len()).map(|i| x[i] * angle(i).cos() + partner(i) * angle(i).sin()).collect()
    };
    heads.iter().map(|head| head.iter().enumerate().map(|(position, x)| turn(position, x)).collect()).collect()
}

fn attention(model: &TinyLlama, q: &[Matrix], k: &[Matrix], v: &[Matrix]) -> Matrix {
    let tokens = q[0].len();
    let mut out = vec![Vec::new(); tokens];
    for (head, q) in q.iter().enumerate() {
        let shared = head * model.kv_heads / model.heads;
        for (t, row) in out.iter_mut().enumerate() {
            let scores: Vec<f64> = (0..=t)
                .map(|s| {
                    q[t].iter().zip(&k[shared][s]).map(|(a, b)| a * b).sum::<f64>() / (model.head_dim as f64).sqrt()
                })
                .collect();
            let total = log_sum_exp(&scores);
            row.extend(
                (0..model.head_dim).map(|d| (0..=t).map(|s| (scores[s] - total).exp() * v[shared][s][d]).sum::<f64>()),
            );
        }
    }
    out
}

fn log_sum_exp(x: &[f64]) -> f64 {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    max + x.iter().map(|x| (x - max).exp()).sum::<f64>().ln()
}
