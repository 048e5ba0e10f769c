//! Scores whole texts with a model of random weights, to time it and to check that the results are bit-identical
//! however a text is scored.

use std::ops::Range;
use std::time::Instant;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use surprisal_engine::cuda::{Accelerator, CudaBackend, CudaConfig, Precision, WeightSource};
use surprisal_engine::{
    BLOCK_TOKENS, Backend, BackendError, Chunk, ForwardBatch, Hidden, LoadError, PositionOptions, ScoreRow, TokenChoice,
};
use surprisal_model::{Error, LlamaConfig};

use crate::gpu::Check;

/// Distinct random weights per tensor. A longer tensor repeats them. The number is prime, so that rows differ.
const DISTINCT_WEIGHTS: usize = 1_000_003;

/// A model whose random weights are generated when they are read. The weights are large enough that attention is
/// uneven, and small enough that nothing overflows.
#[derive(Clone, Debug)]
pub struct RandomWeights {
    config: LlamaConfig,
}

impl RandomWeights {
    /// Creates a model from the text of a config.json.
    ///
    /// # Errors
    ///
    /// The same as for [`LlamaConfig::parse`].
    pub fn new(config: &str) -> Result<Self, Error> {
        Ok(Self { config: LlamaConfig::parse(config)? })
    }

    /// Returns the number of operations to score a token, without attention; a multiply-add counts as two.
    pub fn operations(&self) -> usize {
        let LlamaConfig { hidden_size, intermediate_size, layers, heads, kv_heads, head_dim, .. } = self.config;
        let layer = (2 * heads + 2 * kv_heads) * head_dim * hidden_size + 3 * intermediate_size * hidden_size;
        2 * (layers * layer + self.config.vocab_size * hidden_size)
    }
}

impl WeightSource for RandomWeights {
    fn config(&self) -> &LlamaConfig {
        &self.config
    }

    fn fingerprint(&self) -> Result<String, Error> {
        Ok("random".to_owned())
    }

    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    fn bf16(&self, name: &str, shape: &[usize]) -> Result<Vec<u8>, Error> {
        let mut seed = [0; 32];
        name.bytes().enumerate().for_each(|(at, byte)| seed[at % 32] ^= byte.rotate_left(at as u32 / 32));
        let mut rng = ChaCha8Rng::from_seed(seed);
        let (center, spread) = match shape {
            [_, columns] => (0.0, 2.5 / (*columns as f32).sqrt()),
            _ => (1.0, 0.2),
        };
        let value = |_| ((center + spread * rng.random_range(-1.0..1.0f32)).to_bits() >> 16) as u16;
        let length = shape.iter().product::<usize>();
        let random: Vec<u8> = (0..length.min(DISTINCT_WEIGHTS)).map(value).flat_map(u16::to_le_bytes).collect();
        let mut bytes = Vec::with_capacity(2 * length);
        while bytes.len() < 2 * length {
            bytes.extend_from_slice(&random[..random.len().min(2 * length - bytes.len())]);
        }
        Ok(bytes)
    }

    fn f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Error> {
        let bytes = self.bf16(name, shape)?;
        Ok(bytes.chunks_exact(2).map(|b| f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16)).collect())
    }
}

/// The results of measuring a whole model.
#[derive(Clone, Debug)]
pub struct ModelResults {
    /// Checks that a text's results are bit-identical however it is scored.
    pub checks: Vec<Check>,
    /// Timings, one per length.
    pub prefills: Vec<Prefill>,
    /// Milliseconds of a pass of one token: first queued launch by launch, then replayed as a graph.
    pub single_token: [f64; 2],
}

/// The time it takes to score a whole text.
#[derive(Clone, Debug, PartialEq)]
pub struct Prefill {
    /// Tokens of the text.
    pub tokens: usize,
    /// Median time in milliseconds, from the text in host memory to its log-probabilities in host memory.
    pub milliseconds: f64,
}

/// A text in a batch: its tokens, and the rows to run. The rows before them are in the cache.
struct TextRows<'a> {
    tokens: &'a [u32],
    rows: Range<usize>,
    first_block: usize,
}

/// Returns, for each text, the bits of the log-probability of the token after each of its rows.
fn score<A: Accelerator>(backend: &mut CudaBackend<A>, texts: &[TextRows<'_>]) -> Result<Vec<Vec<u32>>, BackendError> {
    let mut batch = ForwardBatch::default();
    for TextRows { tokens, rows, first_block } in texts {
        let at = batch.tokens.len();
        batch.tokens.extend(&tokens[rows.clone()]);
        let last = first_block + rows.end.div_ceil(BLOCK_TOKENS);
        let blocks = (*first_block as u32..last as u32).collect();
        batch.chunks.push(Chunk { rows: at..batch.tokens.len(), start: rows.start, blocks });
        let next = rows.clone().map(|row| row + 1).filter(|&next| next < tokens.len());
        batch.scores.extend(next.enumerate().map(|(i, next)| ScoreRow {
            from: Hidden::Row(at + i),
            choice: TokenChoice::Given(tokens[next]),
            options: PositionOptions::default(),
        }));
    }
    let mut scores = backend.forward(&batch)?.into_iter().map(|score| score.logprob.to_bits());
    let scored = |text_rows: &TextRows<'_>| text_rows.rows.end.min(text_rows.tokens.len() - 1) - text_rows.rows.start;
    Ok(texts.iter().map(|text_rows| scores.by_ref().take(scored(text_rows)).collect()).collect())
}

/// Times texts of these lengths, `repeats` times each, with weights and cache in the same precision. Also scores the
/// shortest text in several ways, and checks that the results are bit-identical.
///
/// # Errors
///
/// The model does not fit, or the device fails.
pub fn measure_model<A: Accelerator>(
    device: A,
    weights: &RandomWeights,
    lengths: &[usize],
    repeats: usize,
    precision: Precision,
) -> Result<ModelResults, LoadError> {
    let longest = lengths.iter().copied().max().unwrap_or(1);
    let shortest = lengths.iter().copied().min().unwrap_or(1);
    let config = CudaConfig {
        weights: precision,
        cache: precision,
        cache_bytes: None,
        max_length: Some(longest),
        batch_tokens: longest.max(2 * shortest),
        batch_sequences: 3,
    };
    let mut backend = CudaBackend::load(device, weights, config)?;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let vocabulary = weights.config.vocab_size as u32;
    let text: Vec<u32> = (0..longest).map(|_| rng.random_range(0..vocabulary)).collect();
    let mut prefills = Vec::new();
    for &tokens in lengths {
        let whole = TextRows { tokens: &text[..tokens], rows: 0..tokens, first_block: 0 };
        score(&mut backend, std::slice::from_ref(&whole))?;
        let times = (0..repeats).map(|_| time_score(&mut backend, &whole)).collect::<Result<Vec<_>, _>>()?;
        prefills.push(Prefill { tokens, milliseconds: median(times) });
    }
    let single_token = time_single_token(&mut backend, &text[..shortest])?;
    let mut checks = check_bits(&mut backend, &text[..shortest], vocabulary)?;
    checks.push(Check {
        name: "passes of one token are recorded".to_owned(),
        failure: (!backend.records_passes())
            .then(|| "the device does not record passes; timings `as a graph` were queued launch by launch".into()),
    });
    Ok(ModelResults { checks, prefills, single_token })
}

/// Returns the milliseconds it takes to score a text.
fn time_score<A: Accelerator>(backend: &mut CudaBackend<A>, text_rows: &TextRows<'_>) -> Result<f64, BackendError> {
    let start = Instant::now();
    score(backend, std::slice::from_ref(text_rows))?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Times passes of one token at the end of the first 64, 128, ... tokens of a text. For each width of the block table,
/// the first pass is queued, the second is recorded, and the third is replayed. (The pass for 32 tokens already ran
/// while the model was loaded.)
fn time_single_token<A: Accelerator>(backend: &mut CudaBackend<A>, text: &[u32]) -> Result<[f64; 2], BackendError> {
    score(backend, &[TextRows { tokens: text, rows: 0..text.len(), first_block: 0 }])?;
    let (mut queued, mut replayed) = (Vec::new(), Vec::new());
    for end in (1..).map(|power| BLOCK_TOKENS << power).take_while(|&end| end < text.len()) {
        let last = TextRows { tokens: &text[..=end], rows: end - 1..end, first_block: 0 };
        queued.push(time_score(backend, &last)?);
        time_score(backend, &last)?;
        replayed.push(time_score(backend, &last)?);
    }
    Ok([queued, replayed].map(median))
}

/// Checks that a text's results are bit-identical with a cold cache, in a batch, in chunks, for its end with a warm
/// cache, and for a single token near its end.
fn check_bits<A: Accelerator>(
    backend: &mut CudaBackend<A>,
    text: &[u32],
    vocabulary: u32,
) -> Result<Vec<Check>, BackendError> {
    let length = text.len();
    let rows_of_text = |rows: Range<usize>, first_block: usize| TextRows { tokens: text, rows, first_block };
    let cold = score(backend, &[rows_of_text(0..length, 0)])?.remove(0);
    let finite = cold.iter().all(|&bits| f32::from_bits(bits).is_finite());
    // The text in other blocks of the cache, in a batch with another text and its own first half.
    let blocks = length.div_ceil(BLOCK_TOKENS);
    let other: Vec<u32> = text[..length / 3].iter().map(|&token| (token + 1) % vocabulary).collect();
    let other = TextRows { tokens: &other, rows: 0..other.len(), first_block: 2 * blocks };
    let again = TextRows { tokens: &text[..length / 2], rows: 0..length / 2, first_block: 3 * blocks };
    let batched = score(backend, &[other, rows_of_text(0..length, blocks), again])?;
    let (cut, warm) = (length / 3 + 5, length - length / 8);
    let pieces =
        [rows_of_text(0..cut, 4 * blocks), rows_of_text(cut..warm, 4 * blocks), rows_of_text(warm..length, 4 * blocks)];
    let mut chunked = Vec::new();
    for piece in pieces {
        chunked.extend(score(backend, &[piece])?.remove(0));
    }
    let rescored = score(backend, &[rows_of_text(warm..length, 0)])?.remove(0);
    let last = length - 2;
    // The first pass is queued launch by launch, the second recorded, the others replayed.
    let decoded = (0..4)
        .map(|_| Ok(score(backend, &[rows_of_text(last..last + 1, 0)])?.remove(0)))
        .collect::<Result<Vec<_>, BackendError>>()?;
    let check = |name: &str, is_same: bool| Check {
        name: format!("{length} tokens through all layers: {name}"),
        failure: (!is_same).then(|| "the bits differ from those of the text scored alone and cold".to_owned()),
    };
    let finite =
        Check { failure: (!finite).then(|| "a result is NaN or infinite".to_owned()), ..check("finite", true) };
    Ok(vec![
        finite,
        check("batched", batched[1] == cold && batched[2] == cold[..length / 2 - 1]),
        check("in three chunks", chunked == cold),
        check("the end, with a warm cache", rescored == cold[warm..]),
        check("one token alone", decoded.iter().all(|decoded| *decoded == cold[last..])),
    ])
}
