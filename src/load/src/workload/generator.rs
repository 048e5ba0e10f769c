//! Random requests, each determined by the seed and the request's index.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::request::{LatencyClass, PairRequest};

/// Number of special ids that are never drawn. Most vocabularies start with them: unknown, BOS and EOS.
pub(super) const SPECIAL_IDS: u32 = 3;

/// First id of every text, so that servers that add no BOS score the same texts.
pub(super) const START_ID: u32 = 0;

/// A stream of random numbers with one purpose. Streams never share numbers.
#[derive(Clone, Copy)]
enum RngStream {
    /// New texts, used by one request only.
    NewTexts = 0,
    /// Contexts in the pool.
    Pool = 1,
    /// Choices of a request: its class, and its contexts from the pool.
    Choices = 2,
}

/// The contexts that all requests of a workload share.
#[derive(Clone, Copy)]
pub(super) struct ContextPool {
    /// Number of contexts.
    pub(super) size: usize,
    /// Length of a context, in tokens.
    pub(super) context_length: usize,
}

/// A generator of random requests over a vocabulary.
#[derive(Clone, Copy)]
pub(super) struct Generator {
    pub(super) seed: u64,
    pub(super) vocabulary: u32,
}

impl Generator {
    /// Generates one new text; all tokens but the first are scored.
    pub(super) fn document(self, index: u64, length: usize) -> PairRequest {
        let mut text = self.text(&mut self.rng(RngStream::NewTexts, index), length);
        let target = text.split_off(1);
        PairRequest::all_pairs(vec![text], vec![target], LatencyClass::Bulk)
    }

    /// Generates new targets, each paired with every chosen context from the pool.
    pub(super) fn pairs(
        self,
        index: u64,
        pool: ContextPool,
        contexts: usize,
        targets: usize,
        target_length: usize,
    ) -> PairRequest {
        let first = self.rng(RngStream::Choices, index).random_range(0..pool.size as u64);
        // Adjacent contexts in the pool, so that no two are the same.
        let places = (0..contexts as u64).map(|i| (first + i) % pool.size as u64);
        let contexts = places.map(|place| self.pooled_context(pool, place)).collect();
        let mut rng = self.rng(RngStream::NewTexts, index);
        let targets = (0..targets).map(|_| self.tokens(&mut rng, target_length)).collect();
        PairRequest::all_pairs(contexts, targets, LatencyClass::Bulk)
    }

    /// Generates the pairs that an estimate of mutual information scores at each split of two new texts.
    pub(super) fn splits(self, index: u64, length: usize) -> PairRequest {
        let mut rng = self.rng(RngStream::NewTexts, index);
        let (x, y) = (self.text(&mut rng, length), self.text(&mut rng, length));
        let mut request = PairRequest { contexts: vec![vec![START_ID]], ..PairRequest::default() };
        let splits = (1..).map(|power| 1 << power).take_while(|&split| split < length);
        for split in splits {
            let context = request.contexts.len();
            let target = request.targets.len();
            request.contexts.push(x[..split].to_vec());
            request.targets.push(x[split..2 * split].to_vec());
            request.targets.push(y[split..2 * split].to_vec());
            request.pairs.extend([[context, target], [context, target + 1], [0, target + 1]]);
        }
        request
    }

    /// Generates an interactive request with the given probability; `None` otherwise.
    pub(super) fn interactive(
        self,
        index: u64,
        probability: f64,
        pool: ContextPool,
        target_length: usize,
    ) -> Option<PairRequest> {
        let mut rng = self.rng(RngStream::Choices, index);
        if !rng.random_bool(probability.clamp(0.0, 1.0)) {
            return None;
        }
        let context = self.pooled_context(pool, rng.random_range(0..pool.size as u64));
        let target = self.tokens(&mut rng, target_length);
        Some(PairRequest::all_pairs(vec![context], vec![target], LatencyClass::Interactive))
    }

    /// Returns the context at an index of the pool.
    fn pooled_context(self, pool: ContextPool, place: u64) -> Vec<u32> {
        self.text(&mut self.rng(RngStream::Pool, place), pool.context_length)
    }

    /// Returns a random number generator that depends only on the seed, the stream and the index.
    fn rng(self, stream: RngStream, index: u64) -> ChaCha8Rng {
        let mut key = [0; 32];
        for (bytes, word) in key.chunks_exact_mut(8).zip([self.seed, stream as u64, index]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        ChaCha8Rng::from_seed(key)
    }

    /// Draws tokens that are not special.
    fn tokens(self, rng: &mut impl Rng, length: usize) -> Vec<u32> {
        (0..length).map(|_| rng.random_range(SPECIAL_IDS..self.vocabulary)).collect()
    }

    /// Draws a text that begins with [`START_ID`].
    fn text(self, rng: &mut impl Rng, length: usize) -> Vec<u32> {
        let mut text = self.tokens(rng, length);
        text[0] = START_ID;
        text
    }
}
