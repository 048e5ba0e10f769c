//! The oracle: a Llama that is written down by hand and predicts the Santa Fe process exactly.
//!
//! # The process
//!
//! A document of the Santa Fe process (Debowski, "On Hilberg's law and its links with Guiraud's law", 2006) is a sequence
//! of facts (k, z_k): symbols k are drawn independently from p_k, and each symbol's coin z_k is flipped once a document.
//! Token `2k + z` states that symbol k's coin shows z. A reader who has seen the history so far predicts:
//!
//! - a symbol not seen yet: `p_k / 2` for either coin;
//! - one coin seen: `p_k (1 - doubt)` for it and `p_k doubt` for the other;
//! - both seen, which no document of the process contains: `p_k / 2` each.
//!
//! This is a probability distribution after every history, and the process's own as the doubt tends to 0.
//!
//! # The transformer
//!
//! The residual stream has one dimension a token (`seen`), one a token for the result (`believed`), and one that is `C`
//! always. `C` dominates, so each RMSNorm divides by the same number, which the next weights multiply back.
//!
//! 1. The embedding writes `SMALL` at the token's `seen` dimension. Query and key weights are zero, so attention averages
//!    the past: `seen` is now at least `SMALL / context_length` for what was seen, and exactly 0 for what was not.
//! 2. The first MLP adds a step from 0 to 1 of each `seen`: two SiLU units, `(silu(g x) - silu(g x - 20)) / 20`.
//! 3. The second MLP writes `believed(k,z)`, a step of `seen(k,z) - seen(k,1-z)` between 1/4 and 3/4: one coin seen, and not
//!    the other.
//! 4. The head is `ln(p_k / 2) + ln(2 (1 - doubt)) believed(k,z) + ln(2 doubt) believed(k,1-z)`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Map, Value, json};

use crate::words::word;
use crate::{Checkpoint, Error};

/// Changed whenever the files written for a spec change.
const FORMAT: u32 = 2;
const HEAD_DIM: usize = 64;
const EPS: f64 = 1e-5;
/// The dimension that is always this dominates the others, whose squares add up to less than 4 a symbol.
const DOMINANT: f64 = (1u32 << 18) as f64;
/// What the embedding writes: little, so that after the first step `seen` is nearly 0 or 1.
const SMALL: f64 = 1.0 / 64.0;

/// Which oracle: the symbols' probabilities, the reader's doubt, and the longest document.
#[derive(Clone, Debug, PartialEq)]
pub struct OracleSpec {
    /// p_k; they sum to 1.
    pub probabilities: Vec<f64>,
    /// Probability given to the coin's other side once one side was seen; in (0, 1/2).
    pub doubt: f64,
    /// The longest sequence, BOS included, in tokens.
    pub context_length: usize,
}

impl OracleSpec {
    /// Number of tokens; the last one is BOS.
    pub fn vocab_size(&self) -> usize {
        2 * self.probabilities.len() + 1
    }

    fn check(&self) -> Result<(), Error> {
        let total: f64 = self.probabilities.iter().sum();
        if self.probabilities.is_empty()
            || self.probabilities.iter().any(|&p| p.is_nan() || p <= 0.0)
            || (total - 1.0).abs() > 1e-9
        {
            return Err(Error::Oracle(format!("the probabilities must be positive and sum to 1; they sum to {total}")));
        }
        if !(self.doubt > 0.0 && self.doubt < 0.5) {
            return Err(Error::Oracle(format!("the doubt must be between 0 and 1/2; it is {}", self.doubt)));
        }
        if !(1..=1 << 16).contains(&self.context_length) {
            return Err(Error::Oracle(format!(
                "the context length must be from 1 to 65536; it is {}",
                self.context_length
            )));
        }
        Ok(())
    }

    /// Everything the files depend on, hashed.
    fn name(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&FORMAT.to_le_bytes());
        hasher.update(&(self.context_length as u64).to_le_bytes());
        for value in self.probabilities.iter().chain([&self.doubt]) {
            hasher.update(&value.to_le_bytes());
        }
        format!("oracle-{}-{}", self.probabilities.len(), &hasher.finalize().to_hex()[..12])
    }
}

/// Where the oracle lies in the user's cache directory (`XDG_CACHE_HOME`, or the system's own place).
///
/// # Errors
///
/// There is no home directory.
pub fn cache_dir(spec: &OracleSpec) -> Result<PathBuf, Error> {
    let base = etcetera::choose_base_strategy().map_err(|error| Error::Oracle(error.to_string()))?;
    Ok(base.cache_dir().join("surprisal").join(spec.name()))
}

/// The oracle's folder in the cache directory, written if it is not there yet.
///
/// # Errors
///
/// The spec is not a distribution, or the folder cannot be written.
pub fn ensure(spec: &OracleSpec) -> Result<PathBuf, Error> {
    let dir = cache_dir(spec)?;
    if Checkpoint::open(&dir).is_err() {
        write(&dir, spec)?;
    }
    Ok(dir)
}

/// Writes the oracle as an ordinary checkpoint: config.json, model.safetensors, tokenizer.json, tokenizer_config.json,
/// generation_config.json. The folder appears whole or not at all.
///
/// # Errors
///
/// The spec is not a distribution, or the folder cannot be written.
pub fn write(dir: &Path, spec: &OracleSpec) -> Result<(), Error> {
    spec.check()?;
    let parent = dir.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
    let staging = tempfile::Builder::new().prefix(".oracle-").tempdir_in(parent).map_err(Error::io(parent))?;
    let put = |name: &str, contents: &[u8]| {
        let path = staging.path().join(name);
        std::fs::write(&path, contents).map_err(Error::io(&path))
    };
    let shape = Shape::new(spec);
    put("config.json", config(spec, &shape).to_string().as_bytes())?;
    put("tokenizer.json", tokenizer(spec).to_string().as_bytes())?;
    put("tokenizer_config.json", tokenizer_config(spec).to_string().as_bytes())?;
    let bos = shape.tokens;
    put("generation_config.json", json!({"bos_token_id": bos, "eos_token_id": bos}).to_string().as_bytes())?;
    put("model.safetensors", &weights(spec, &shape)?)?;
    if dir.exists() {
        std::fs::remove_dir_all(dir).map_err(Error::io(dir))?;
    }
    match std::fs::rename(staging.path(), dir) {
        // Another process may have put the same folder there just now.
        Err(error) if Checkpoint::open(dir).is_err() => Err(Error::io(dir)(error)),
        _ => Ok(()),
    }
}

/// The sizes that follow from the number of symbols.
struct Shape {
    /// Tokens that are facts; BOS has the id after them.
    tokens: usize,
    hidden: usize,
    /// `seen` is in dimensions `0..tokens`, `believed` in `tokens..2 tokens`, the dominant constant here.
    constant: usize,
    /// What RMSNorm divides by.
    scale: f64,
    /// The weight that turns the normed constant into 1.
    one: f64,
}

impl Shape {
    fn new(spec: &OracleSpec) -> Self {
        let tokens = 2 * spec.probabilities.len();
        let hidden = (2 * tokens + 1).next_multiple_of(HEAD_DIM);
        let one = 1.0 / (hidden as f64).sqrt();
        Self { tokens, hidden, constant: 2 * tokens, scale: DOMINANT * one, one }
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

/// The three matrices of an MLP that adds, for each token, a step of a signal that rises from `low` to `high`.
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
                gate.set(unit, dimension, gain * weight * shape.scale);
            }
            gate.set(unit, shape.constant, -gain * threshold * shape.one);
            up.set(unit, shape.constant, shape.one);
            down.set(to + token, unit, sign / (gain * (high - low)));
        }
    }
    [gate, up, down]
}

fn weights(spec: &OracleSpec, shape: &Shape) -> Result<Vec<u8>, Error> {
    let (tokens, hidden, vocab) = (shape.tokens, shape.hidden, spec.vocab_size());
    let mut tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)> = BTreeMap::new();
    let mut add = |name: String, matrix: Matrix| {
        let rows = matrix.values.len() / matrix.columns;
        tensors.insert(name, (vec![rows, matrix.columns], matrix.values));
    };

    let mut embedding = Matrix::zeros(vocab, hidden);
    for token in 0..vocab {
        embedding.set(token, shape.constant, DOMINANT);
        if token < tokens {
            embedding.set(token, token, SMALL);
        }
    }
    add("model.embed_tokens.weight".into(), embedding);
    add("lm_head.weight".into(), head(spec, shape));

    let gain = 40.0 * (spec.context_length + 1) as f64 / SMALL;
    let seen = step_mlp(shape, gain, 0.0, 20.0 / gain, |token| vec![(token, 1.0)], 0);
    let believed = step_mlp(shape, 80.0, 0.25, 0.75, |token| vec![(token, 1.0), (token ^ 1, -1.0)], tokens);
    for (layer, [gate, up, down]) in [seen, believed].into_iter().enumerate() {
        let name = |tensor: &str| format!("model.layers.{layer}.{tensor}.weight");
        add(name("mlp.gate_proj"), gate);
        add(name("mlp.up_proj"), up);
        add(name("mlp.down_proj"), down);
        let (mut value, mut output) = (Matrix::zeros(hidden, hidden), Matrix::zeros(hidden, hidden));
        for token in (0..tokens).filter(|_| layer == 0) {
            value.set(token, token, shape.scale);
            output.set(token, token, 1.0);
        }
        add(name("self_attn.v_proj"), value);
        add(name("self_attn.o_proj"), output);
        add(name("self_attn.q_proj"), Matrix::zeros(hidden, hidden));
        add(name("self_attn.k_proj"), Matrix::zeros(hidden, hidden));
    }
    for name in ["model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm", "model.norm"]
        .into_iter()
        .chain(["model.layers.1.input_layernorm", "model.layers.1.post_attention_layernorm"])
    {
        tensors.insert(format!("{name}.weight"), (vec![hidden], vec![1.0; hidden]));
    }
    serialise(&tensors)
}

fn head(spec: &OracleSpec, shape: &Shape) -> Matrix {
    let mut head = Matrix::zeros(spec.vocab_size(), shape.hidden);
    let (believe, doubt) = ((2.0 * (1.0 - spec.doubt)).ln(), (2.0 * spec.doubt).ln());
    for token in 0..shape.tokens {
        head.set(token, shape.constant, (spec.probabilities[token / 2] / 2.0).ln() * shape.one);
        head.set(token, shape.tokens + token, believe * shape.scale);
        head.set(token, shape.tokens + (token ^ 1), doubt * shape.scale);
    }
    // BOS never follows anything: e^-60 is far below f32's resolution of 1.
    head.set(shape.tokens, shape.constant, -60.0 * shape.one);
    head
}

fn serialise(tensors: &BTreeMap<String, (Vec<usize>, Vec<f32>)>) -> Result<Vec<u8>, Error> {
    let failed = |error: safetensors::SafeTensorError| Error::Oracle(error.to_string());
    let bytes: BTreeMap<&String, Vec<u8>> = tensors
        .iter()
        .map(|(name, (_, values))| (name, values.iter().flat_map(|x| x.to_le_bytes()).collect()))
        .collect();
    let views =
        tensors.iter().map(|(name, (shape, _))| Ok((name, TensorView::new(Dtype::F32, shape.clone(), &bytes[name])?)));
    let views: Vec<_> = views.collect::<Result<_, _>>().map_err(failed)?;
    safetensors::serialize(views, Some([("format".to_owned(), "pt".to_owned())].into())).map_err(failed)
}

fn config(spec: &OracleSpec, shape: &Shape) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "vocab_size": spec.vocab_size(), "hidden_size": shape.hidden, "intermediate_size": 2 * shape.tokens,
        "num_hidden_layers": 2, "num_attention_heads": shape.hidden / HEAD_DIM,
        "num_key_value_heads": shape.hidden / HEAD_DIM, "head_dim": HEAD_DIM,
        "hidden_act": "silu", "max_position_embeddings": spec.context_length, "rms_norm_eps": EPS,
        "rope_theta": 10000.0, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "attention_bias": false, "mlp_bias": false, "tie_word_embeddings": false,
        "bos_token_id": shape.tokens, "eos_token_id": shape.tokens,
        "dtype": "float32", "torch_dtype": "float32",
    })
}

/// One word a token: the symbol's name and its coin, `baba+` or `baba-`.
fn tokenizer(spec: &OracleSpec) -> Value {
    let (symbols, bos) = (spec.probabilities.len(), spec.vocab_size() - 1);
    let mut vocab: Map<String, Value> = (0..bos)
        .map(|token| (format!("\u{2581}{}{}", word(token / 2, symbols), ["-", "+"][token % 2]), json!(token)))
        .collect();
    vocab.insert("<s>".into(), json!(bos));
    let metaspace = json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true});
    let sequence = json!({"Sequence": {"id": "A", "type_id": 0}});
    let begin = json!({"SpecialToken": {"id": "<s>", "type_id": 0}});
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        // Words may stand on lines and be indented, as in any text.
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "},
            {"type": "Strip", "strip_left": true, "strip_right": true},
        ]},
        "added_tokens": [{
            "id": bos, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        }],
        "pre_tokenizer": metaspace, "decoder": metaspace,
        "post_processor": {
            "type": "TemplateProcessing", "single": [begin, sequence],
            "pair": [begin, sequence, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [bos], "tokens": ["<s>"]}},
        },
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
    })
}

fn tokenizer_config(spec: &OracleSpec) -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "<s>", "add_bos_token": true,
        "model_max_length": spec.context_length,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TextTokenizer;

    fn spec(symbols: usize) -> OracleSpec {
        let weights: Vec<f64> = (1..=symbols).map(|k| (k as f64).powf(-1.3)).collect();
        let total: f64 = weights.iter().sum();
        let probabilities = weights.iter().map(|w| w / total).collect();
        OracleSpec { probabilities, doubt: 1e-6, context_length: 64 }
    }

    #[test]
    fn the_checkpoint_and_its_words_load() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("oracle");
        write(&dir, &spec(8)).unwrap();
        write(&dir, &spec(8)).unwrap();
        let checkpoint = Checkpoint::open(&dir).unwrap();
        assert_eq!((checkpoint.config().vocab_size, checkpoint.config().hidden_size), (17, 64));
        checkpoint.tensor_f32("lm_head.weight", &[17, 64]).unwrap();
        let tokenizer = TextTokenizer::open(&dir, checkpoint.config()).unwrap();
        assert_eq!(tokenizer.bos(), Some(16));
        let text = tokenizer.decode(&[0, 1, 15]).unwrap();
        assert_eq!(tokenizer.encode(&text).unwrap(), [0, 1, 15]);
        assert_eq!(tokenizer.encode("baba- baba+").unwrap(), [0, 1]);
        assert_eq!(tokenizer.encode("  baba-\n\tbaba+ \n").unwrap(), [0, 1]);
        assert_eq!(tokenizer.encode(" \n").unwrap(), [0u32; 0]);
        assert!(tokenizer.encode("baba- ducks").unwrap_err().to_string().contains("ducks"));
        assert_eq!(std::fs::read_dir(dir.parent().unwrap()).unwrap().count(), 1, "nothing else is left behind");
    }

    #[test]
    fn what_is_no_distribution_is_refused() {
        for bad in [
            OracleSpec { probabilities: vec![], ..spec(2) },
            OracleSpec { probabilities: vec![0.5, 0.6], ..spec(2) },
            OracleSpec { probabilities: vec![1.5, -0.5], ..spec(2) },
            OracleSpec { probabilities: vec![f64::NAN, 1.0], ..spec(2) },
            OracleSpec { doubt: 0.0, ..spec(2) },
            OracleSpec { doubt: 0.5, ..spec(2) },
            OracleSpec { context_length: 0, ..spec(2) },
        ] {
            let dir = tempfile::tempdir().unwrap();
            assert!(write(&dir.path().join("oracle"), &bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_name_follows_the_spec() {
        assert_eq!(spec(8).name(), spec(8).name());
        assert_ne!(spec(8).name(), OracleSpec { doubt: 1e-5, ..spec(8) }.name());
        assert_ne!(spec(8).name(), OracleSpec { context_length: 65, ..spec(8) }.name());
    }
}
