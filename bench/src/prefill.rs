//! Scoring of whole texts by a whole model of random weights: how long it takes, and whether a text keeps its bits.

use std::borrow::Cow;
use std::ops::Range;
use std::time::Instant;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use surprisal_engine::cuda::{Accelerator, CudaBackend, CudaConfig, Precision, Source};
use surprisal_engine::{
    BLOCK_TOKENS, Backend, BackendError, Chunk, ForwardBatch, Hidden, LoadError, PositionOptions, ScoreRow, TokenChoice,
};
use surprisal_model::{Error, LlamaConfig};

use crate::gpu::Check;

/// Weights of one tensor that are drawn; a longer one repeats them, at a period that divides no row.
const DRAWN: usize = 1_000_003;

/// A model whose weights are drawn when they are asked for, so large that attention is uneven and small enough that nothing
/// overflows.
#[derive(Clone, Debug)]
pub struct RandomWeights {
    config: LlamaConfig,
}

impl RandomWeights {
    /// Of a model as its config.json has it.
    ///
    /// # Errors
    ///
    /// As [`LlamaConfig::parse`].
    pub fn new(config: &str) -> Result<Self, Error> {
        Ok(Self { config: LlamaConfig::parse(config)? })
    }

    /// Every multiply-add of scoring a token, attention apart, counts two.
    pub fn operations(&self) -> usize {
        let LlamaConfig { hidden_size, intermediate_size, layers, heads, kv_heads, head_dim, .. } = self.config;
        let layer = (2 * heads + 2 * kv_heads) * head_dim * hidden_size + 3 * intermediate_size * hidden_size;
        2 * (layers * layer + self.config.vocab_size * hidden_size)
    }
}

impl Source for RandomWeights {
    fn config(&self) -> &LlamaConfig {
        &self.config
    }

    fn fingerprint(&self) -> Result<String, Error> {
        Ok("random".to_owned())
    }

    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    fn bf16(&self, name: &str, shape: &[usize]) -> Result<Cow<'_, [u8]>, Error> {
        let mut seed = [0; 32];
        name.bytes().enumerate().for_each(|(at, byte)| seed[at % 32] ^= byte.rotate_left(at as u32 / 32));
        let mut rng = ChaCha8Rng::from_seed(seed);
        let (centre, spread) = match shape {
            [_, columns] => (0.0, 2.5 / (*columns as f32).sqrt()),
            _ => (1.0, 0.2),
        };
        let value = |_| ((centre + spread * rng.random_range(-1.0..1.0f32)).to_bits() >> 16) as u16;
        let length = shape.iter().product::<usize>();
        let drawn: Vec<u8> = (0..length.min(DRAWN)).map(value).flat_map(u16::to_le_bytes).collect();
        let mut bytes = Vec::with_capacity(2 * length);
        while bytes.len() < 2 * length {
            bytes.extend_from_slice(&drawn[..drawn.len().min(2 * length - bytes.len())]);
        }
        Ok(Cow::Owned(bytes))
    }

    fn f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Error> {
        let bytes = self.bf16(name, shape)?;
        Ok(bytes.chunks_exact(2).map(|b| f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16)).collect())
    }
}

/// What a whole model was found to do.
#[derive(Clone, Debug)]
pub struct Found {
    /// What must hold.
    pub checks: Vec<Check>,
    /// Of each length.
    pub prefills: Vec<Prefill>,
    /// Milliseconds of a pass of one token, queued launch by launch, and recorded and replayed.
    pub single: [f64; 2],
}

/// How long scoring all of a text takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Prefill {
    /// Its tokens.
    pub tokens: usize,
    /// Milliseconds, the median of several, from the text on the host to its log-probabilities there.
    pub milliseconds: f64,
}

/// A text in a batch: its tokens, and which rows of it run; the others are in the cache.
struct Part<'a> {
    tokens: &'a [u32],
    rows: Range<usize>,
    first_block: usize,
}

/// Each part's log-probabilities of the tokens after its rows.
fn score<A: Accelerator>(backend: &mut CudaBackend<A>, parts: &[Part<'_>]) -> Result<Vec<Vec<u32>>, BackendError> {
    let mut batch = ForwardBatch::default();
    for Part { tokens, rows, first_block } in parts {
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
    let scored = |part: &Part<'_>| part.rows.end.min(part.tokens.len() - 1) - part.rows.start;
    Ok(parts.iter().map(|part| scores.by_ref().take(scored(part)).collect()).collect())
}

/// With weights and cache in one precision, scores texts of these lengths `repeats` times each, and the shortest one in every way that must not matter.
///
/// # Errors
///
/// The model does not fit, or the device fails.
pub fn prefill<A: Accelerator>(
    device: A,
    weights: &RandomWeights,
    lengths: &[usize],
    repeats: usize,
    precision: Precision,
) -> Result<Found, LoadError> {
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
        let whole = Part { tokens: &text[..tokens], rows: 0..tokens, first_block: 0 };
        score(&mut backend, std::slice::from_ref(&whole))?;
        let times = (0..repeats).map(|_| timed(&mut backend, &whole)).collect::<Result<Vec<_>, _>>()?;
        prefills.push(Prefill { tokens, milliseconds: median(times) });
    }
    let single = single(&mut backend, &text[..shortest])?;
    let mut checks = bits(&mut backend, &text[..shortest], vocabulary)?;
    checks.push(Check {
        name: "passes of one token are recorded".to_owned(),
        failure: (!backend.records())
            .then(|| "the device refuses: what is called a graph was queued launch by launch".into()),
    });
    Ok(Found { checks, prefills, single })
}

/// Milliseconds that scoring a part takes.
fn timed<A: Accelerator>(backend: &mut CudaBackend<A>, part: &Part<'_>) -> Result<f64, BackendError> {
    let start = Instant::now();
    score(backend, std::slice::from_ref(part))?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// A pass of one token at the end of 64, 128, ... of a text: each table's width is new the first time, as that of 32 is not after a
/// load, and replayed from the third on.
fn single<A: Accelerator>(backend: &mut CudaBackend<A>, text: &[u32]) -> Result<[f64; 2], BackendError> {
    score(backend, &[Part { tokens: text, rows: 0..text.len(), first_block: 0 }])?;
    let (mut queued, mut replayed) = (Vec::new(), Vec::new());
    for end in (1..).map(|power| BLOCK_TOKENS << power).take_while(|&end| end < text.len()) {
        let last = Part { tokens: &text[..=end], rows: end - 1..end, first_block: 0 };
        queued.push(timed(backend, &last)?);
        timed(backend, &last)?;
        replayed.push(timed(backend, &last)?);
    }
    Ok([queued, replayed].map(median))
}

/// Whether a text's bits are the same cold, cut, warm, token by token at its end, and in company.
fn bits<A: Accelerator>(
    backend: &mut CudaBackend<A>,
    text: &[u32],
    vocabulary: u32,
) -> Result<Vec<Check>, BackendError> {
    let length = text.len();
    let part = |rows: Range<usize>, first_block: usize| Part { tokens: text, rows, first_block };
    let cold = score(backend, &[part(0..length, 0)])?.remove(0);
    let finite = cold.iter().all(|&bits| f32::from_bits(bits).is_finite());
    // Elsewhere in the cache, behind a stranger and before its own beginning again.
    let blocks = length.div_ceil(BLOCK_TOKENS);
    let stranger: Vec<u32> = text[..length / 3].iter().map(|&token| (token + 1) % vocabulary).collect();
    let company = Part { tokens: &stranger, rows: 0..stranger.len(), first_block: 2 * blocks };
    let again = Part { tokens: &text[..length / 2], rows: 0..length / 2, first_block: 3 * blocks };
    let batched = score(backend, &[company, part(0..length, blocks), again])?;
    let (cut, warm) = (length / 3 + 5, length - length / 8);
    let pieces = [part(0..cut, 4 * blocks), part(cut..warm, 4 * blocks), part(warm..length, 4 * blocks)];
    let mut chunked = Vec::new();
    for piece in pieces {
        chunked.extend(score(backend, &[piece])?.remove(0));
    }
    let rescored = score(backend, &[part(warm..length, 0)])?.remove(0);
    let last = length - 2;
    // At first queued launch by launch, then recorded, then replayed.
    let decoded = (0..4)
        .map(|_| Ok(score(backend, &[part(last..last + 1, 0)])?.remove(0)))
        .collect::<Result<Vec<_>, BackendError>>()?;
    let check = |name: &str, is_same: bool| Check {
        name: format!("{length} tokens through all layers: {name}"),
        failure: (!is_same).then(|| "other bits than cold, whole and alone".to_owned()),
    };
    let finite = Check { failure: (!finite).then(|| "a NaN or infinity".to_owned()), ..check("finite", true) };
    Ok(vec![
        finite,
        check("batched", batched[1] == cold && batched[2] == cold[..length / 2 - 1]),
        check("in three chunks", chunked == cold),
        check("the end on a warm cache", rescored == cold[warm..]),
        check("one token alone", decoded.iter().all(|decoded| *decoded == cold[last..])),
    ])
}
