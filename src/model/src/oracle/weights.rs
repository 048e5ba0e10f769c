//! The weights with which a Llama model predicts the Santa Fe process. The docs of the parent module explain them.

use std::collections::BTreeMap;

use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, TensorView};

use super::spec::OracleSpec;
use crate::error::Error;

/// The size of an attention head.
pub(super) const HEAD_DIM: usize = 64;

/// The value of the constant dimension, `C`. It is much larger than all other dimensions together, whose squares add up
/// to less than 4 per symbol.
const DOMINANT: f64 = (1u32 << 18) as f64;

/// The value that the embedding writes to `seen`: small, so that `seen` is nearly 0 or 1 after the first step function.
const SMALL: f64 = 1.0 / 64.0;

/// Tensors by name. Each tensor is a shape and the values in row-major order.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The sizes that follow from the number of symbols.
pub(super) struct Shape {
    /// Number of tokens that are facts; also the id of BOS.
    pub(super) tokens: usize,
    /// The width of the residual stream.
    pub(super) hidden: usize,
    /// The dimension of the dominant constant; `seen` is in dimensions `0..tokens`, `believed` in `tokens..2 tokens`.
    constant: usize,
    /// The divisor of RMSNorm.
    norm_divisor: f64,
    /// The weight that turns the normalized constant into 1.
    one: f64,
}

impl Shape {
    pub(super) fn new(spec: &OracleSpec) -> Self {
        let tokens = 2 * spec.probabilities.len();
        let hidden = (2 * tokens + 1).next_multiple_of(HEAD_DIM);
        let one = 1.0 / (hidden as f64).sqrt();
        Self { tokens, hidden, constant: 2 * tokens, norm_divisor: DOMINANT * one, one }
    }
}

/// A matrix under construction.
struct Matrix {
    columns: usize,
    values: Vec<f32>,
}

impl Matrix {
    fn zeros(rows: usize, columns: usize) -> Self {
        Self { columns, values: vec![0.0; rows * columns] }
    }

    fn set(&mut self, row: usize, column: usize, value: f64) {
        self.values[row * self.columns + column] = value as f32;
    }
}

/// Returns the gate, up and down matrices of an MLP. For each token, the MLP adds a step function of the token's signal
/// to dimension `to + token`. The step rises from 0 at `low` to 1 at `high`. The signal is a weighted sum of
/// dimensions.
fn step_mlp(
    shape: &Shape,
    gain: f64,
    low: f64,
    high: f64,
    signal: impl Fn(usize) -> Vec<(usize, f64)>,
    to: usize,
) -> [Matrix; 3] {
    let (tokens, units) = (shape.tokens, 2 * shape.tokens);
    let mut gate = Matrix::zeros(units, shape.hidden);
    let mut up = Matrix::zeros(units, shape.hidden);
    let mut down = Matrix::zeros(shape.hidden, units);
    for token in 0..tokens {
        for (unit, threshold, sign) in [(token, low, 1.0), (tokens + token, high, -1.0)] {
            for (dimension, weight) in signal(token) {
                gate.set(unit, dimension, gain * weight * shape.norm_divisor);
            }
            gate.set(unit, shape.constant, -gain * threshold * shape.one);
            up.set(unit, shape.constant, shape.one);
            down.set(to + token, unit, sign / (gain * (high - low)));
        }
    }
    [gate, up, down]
}

/// Returns the contents of model.safetensors.
pub(super) fn safetensors(spec: &OracleSpec, shape: &Shape) -> Result<Vec<u8>, Error> {
    serialize_tensors(&tensors(spec, shape))
}

fn tensors(spec: &OracleSpec, shape: &Shape) -> Tensors {
    let mut tensors = Tensors::new();
    let mut add = |name: String, matrix: Matrix| {
        let rows = matrix.values.len() / matrix.columns;
        tensors.insert(name, (vec![rows, matrix.columns], matrix.values));
    };
    add("model.embed_tokens.weight".into(), embedding(spec, shape));
    add("lm_head.weight".into(), head(spec, shape));

    let gain = 40.0 * (spec.context_length + 1) as f64 / SMALL;
    let seen = step_mlp(shape, gain, 0.0, 20.0 / gain, |token| vec![(token, 1.0)], 0);
    let believed = step_mlp(shape, 80.0, 0.25, 0.75, |token| vec![(token, 1.0), (token ^ 1, -1.0)], shape.tokens);
    let zeros = || Matrix::zeros(shape.hidden, shape.hidden);
    for (layer, [gate, up, down]) in [seen, believed].into_iter().enumerate() {
        let name = |tensor: &str| format!("model.layers.{layer}.{tensor}.weight");
        add(name("mlp.gate_proj"), gate);
        add(name("mlp.up_proj"), up);
        add(name("mlp.down_proj"), down);
        let [value, output] = if layer == 0 { copied_facts(shape) } else { [zeros(), zeros()] };
        add(name("self_attn.v_proj"), value);
        add(name("self_attn.o_proj"), output);
        add(name("self_attn.q_proj"), zeros());
        add(name("self_attn.k_proj"), zeros());
    }
    for name in [
        "model.layers.0.input_layernorm",
        "model.layers.0.post_attention_layernorm",
        "model.layers.1.input_layernorm",
        "model.layers.1.post_attention_layernorm",
        "model.norm",
    ] {
        tensors.insert(format!("{name}.weight"), (vec![shape.hidden], vec![1.0; shape.hidden]));
    }
    tensors
}

/// Returns the embedding matrix, which writes the constant and each fact's `seen`.
fn embedding(spec: &OracleSpec, shape: &Shape) -> Matrix {
    let mut embedding = Matrix::zeros(spec.vocab_size(), shape.hidden);
    for token in 0..spec.vocab_size() {
        embedding.set(token, shape.constant, DOMINANT);
        if token < shape.tokens {
            embedding.set(token, token, SMALL);
        }
    }
    embedding
}

/// Returns the value and output matrices with which attention averages `seen` over the past.
fn copied_facts(shape: &Shape) -> [Matrix; 2] {
    let mut value = Matrix::zeros(shape.hidden, shape.hidden);
    let mut output = Matrix::zeros(shape.hidden, shape.hidden);
    for token in 0..shape.tokens {
        value.set(token, token, shape.norm_divisor);
        output.set(token, token, 1.0);
    }
    [value, output]
}

/// Returns the head matrix, whose logits are the log-probabilities.
fn head(spec: &OracleSpec, shape: &Shape) -> Matrix {
    let mut head = Matrix::zeros(spec.vocab_size(), shape.hidden);
    let (believe, doubt) = ((2.0 * (1.0 - spec.doubt)).ln(), (2.0 * spec.doubt).ln());
    for token in 0..shape.tokens {
        head.set(token, shape.constant, (spec.probabilities[token / 2] / 2.0).ln() * shape.one);
        head.set(token, shape.tokens + token, believe * shape.norm_divisor);
        head.set(token, shape.tokens + (token ^ 1), doubt * shape.norm_divisor);
    }
    // BOS is never predicted: e^-60 is far below f32's resolution at 1.
    head.set(shape.tokens, shape.constant, -60.0 * shape.one);
    head
}

/// Serializes tensors as a safetensors file.
fn serialize_tensors(tensors: &Tensors) -> Result<Vec<u8>, Error> {
    let failed = |error: SafeTensorError| Error::Oracle(error.to_string());
    let mut bytes: BTreeMap<&String, Vec<u8>> = BTreeMap::new();
    for (name, (_, values)) in tensors {
        bytes.insert(name, values.iter().flat_map(|value| value.to_le_bytes()).collect());
    }
    let mut views = Vec::new();
    for (name, (shape, _)) in tensors {
        views.push((name, TensorView::new(Dtype::F32, shape.clone(), &bytes[name]).map_err(failed)?));
    }
    safetensors::serialize(views, Some([("format".to_owned(), "pt".to_owned())].into())).map_err(failed)
}
