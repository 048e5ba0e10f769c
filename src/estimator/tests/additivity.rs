//! The test of additivity: two unrelated texts together have the sum of their information.
#![allow(clippy::unwrap_used)]

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use surprisal_estimator::{
    ConsistencyCheck, ConsistencyTest, Design, Error, ExactSource, LogprobSource, Model, Plan, SantaFe, ScoreQuery, run,
};

/// The number of tokens reserved for each document.
const STRIDE: u32 = 1000;

/// The number of documents of each text.
const PER_TEXT: u32 = 4;

/// A model that recognizes the document of each token, and predicts it from the tokens of that document only. Each answer
/// has noise, and noise that it shares with the answers to like queries about its text, with these standard deviations in
/// nats.
struct Separating {
    source: ExactSource,
    process: SantaFe,
    noise: f64,
    noise_of_text: f64,
}

impl Separating {
    /// Returns the noise of a query's answer.
    fn noise(&self, query: &ScoreQuery) -> f32 {
        let shape = 1_000_000 * query.context.len() as u64 + 1_000_000_000 * query.target.len() as u64;
        let text = 1 + query.target[0] / STRIDE / PER_TEXT;
        let seeds = [shape + u64::from(query.target[0]), shape + 1_000_000_000_000 * u64::from(text)];
        let [own, shared] = seeds.map(|seed| ChaCha8Rng::seed_from_u64(seed).random::<f64>() - 0.5);
        (12_f64.sqrt() * (self.noise * own + self.noise_of_text * shared)) as f32
    }
}

impl LogprobSource for Separating {
    fn model(&self) -> &Model {
        LogprobSource::<u32>::model(&self.source)
    }

    async fn logprobs(&self, queries: Vec<ScoreQuery>) -> Result<Vec<Vec<f32>>, Error> {
        let mut answers = Vec::with_capacity(queries.len());
        for query in queries {
            let noise = self.noise(&query);
            let ScoreQuery { context, target } = query;
            let of = |tokens: &[u32], document: u32| -> Vec<u32> {
                tokens.iter().filter(|&&token| token / STRIDE == document).map(|token| token % STRIDE).collect()
            };
            let mut answer = Vec::new();
            for part in target.chunk_by(|one, next| one / STRIDE == next / STRIDE) {
                let document = part[0] / STRIDE;
                let logprobs = self.process.logprobs(&of(&context, document), &of(part, document))?;
                answer.extend(logprobs.into_iter().map(|logprob| logprob as f32));
            }
            answer[0] += noise;
            answers.push(answer);
        }
        Ok(answers)
    }
}

fn process() -> SantaFe {
    SantaFe::new(60, 1.4, 1e-3).unwrap()
}

fn plan() -> Plan {
    let design = Design { splits: vec![4, 8, 16], additivity: vec![4, 16], seed: 3, ..Design::default() };
    Plan::of_texts((0..240).map(|document| document / PER_TEXT as usize), design).unwrap()
}

fn documents(plan: &Plan) -> Vec<Vec<u32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    (0..plan.documents()).map(|_| process().sample(plan.window(), &mut rng)).collect()
}

fn of_additivity(checks: &[ConsistencyCheck]) -> Vec<ConsistencyCheck> {
    let all = checks.iter().filter(|check| check.test == ConsistencyTest::Additivity);
    let found: Vec<_> = all.copied().collect();
    assert_eq!(
        found.iter().map(|check| (check.from, check.to)).collect::<Vec<_>>(),
        [([2, 8], [2, 16]), ([2, 32], [2, 64])]
    );
    found
}

#[tokio::test]
async fn a_model_that_tells_documents_apart_is_additive() {
    let plan = plan();
    let mark = |(document, tokens): (usize, Vec<u32>)| tokens.iter().map(|t| t + STRIDE * document as u32).collect();
    let documents: Vec<Vec<u32>> = documents(&plan).into_iter().enumerate().map(mark).collect();
    for noise_of_text in [0.0, 0.3] {
        let noise = 0.3;
        let source = Separating { source: ExactSource::new(process()), process: process(), noise, noise_of_text };
        let estimates = run(&source, &documents, &plan, None, |_| {}).await.unwrap();
        for check in of_additivity(&estimates.consistency) {
            let (value, error) = (check.difference.value, check.difference.error);
            // Four answers with noise in y: both joint ones, and each document's marginal. There are 120 pairs of documents
            // from 30 pairs of texts, which share the noise of texts. Over documents, the error would be 0.63 of this one.
            let expected = 2.0 * (noise * noise / 120.0 + noise_of_text * noise_of_text / 30.0).sqrt();
            assert!(!check.is_violated && value.abs() < 3.0 * error, "{check:?}");
            assert!((error / expected - 1.0).abs() < 0.25, "{check:?}, expected {expected}");
        }
    }
}

/// The oracle takes two documents for one, whose facts contradict each other.
#[tokio::test]
async fn documents_that_disturb_each_other_violate_additivity() {
    let plan = plan();
    let estimates = run(&ExactSource::new(process()), &documents(&plan), &plan, None, |_| {}).await.unwrap();
    let found = of_additivity(&estimates.consistency);
    // The longer the documents, the more facts both state.
    assert!(found[1].is_violated && found[1].difference.value < found[0].difference.value, "{found:?}");
    assert_eq!(plan.longest_sequence(), 1 + 64);
}

#[test]
fn additivity_needs_four_texts_and_splits_of_the_plan() {
    let of = |documents, additivity| {
        let design = Design { splits: vec![4, 8], additivity, ..Design::default() };
        Plan::of(documents, design).map(|plan| plan.queries().len()).map_err(|error| error.to_string())
    };
    assert_eq!(
        of(3, vec![4]).unwrap_err(),
        "additivity is [4]; it must be empty for 3 texts, because the test needs at least 4 (pieces of one text count as one text)"
    );
    assert_eq!(of(4, vec![5]).unwrap_err(), "additivity is 5; it must be one of the splits [4, 8]");
    assert_eq!(of(4, vec![4, 8]).unwrap() - of(4, vec![]).unwrap(), 2 * 2 * 2);
}

/// A model that accepts so few tokens that it cannot answer.
struct Short(Model);

impl LogprobSource for Short {
    fn model(&self) -> &Model {
        &self.0
    }

    async fn logprobs(&self, _: Vec<ScoreQuery>) -> Result<Vec<Vec<f32>>, Error> {
        panic!("the queries are too long")
    }
}

#[tokio::test]
async fn two_documents_and_bos_must_fit_the_model() {
    let plan = plan();
    let short = Short(Model { name: "short".to_owned(), fingerprint: "f".to_owned(), max_length: 64 });
    let error = run(&short, &documents(&plan), &plan, None, |_| {}).await.unwrap_err();
    assert!(matches!(error, Error::TooLong { needed: 65, limit: 64, .. }), "{error}");
}
