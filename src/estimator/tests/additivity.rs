//! The test of additivity: two unrelated texts together have the sum of their information.
#![allow(clippy::unwrap_used)]

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use surprisal_estimator::{
    ConsistencyCheck, ConsistencyTest, Design, Error, ExactSource, LogprobSource, Model, Plan, SantaFe, ScoreQuery, run,
};

/// The number of tokens reserved for each document.
const STRIDE: u32 = 1000;

/// A model that recognizes the document of each token, and predicts it from the tokens of that document only. Each answer
/// has noise, with this standard deviation in nats.
struct Separating {
    source: ExactSource,
    process: SantaFe,
    noise: f64,
}

impl LogprobSource for Separating {
    fn model(&self) -> &Model {
        LogprobSource::<u32>::model(&self.source)
    }

    async fn logprobs(&self, queries: Vec<ScoreQuery>) -> Result<Vec<Vec<f32>>, Error> {
        let mut answers = Vec::with_capacity(queries.len());
        for ScoreQuery { context, target } in queries {
            let of = |tokens: &[u32], document: u32| -> Vec<u32> {
                tokens.iter().filter(|&&token| token / STRIDE == document).map(|token| token % STRIDE).collect()
            };
            let mut answer = Vec::new();
            for part in target.chunk_by(|one, next| one / STRIDE == next / STRIDE) {
                let document = part[0] / STRIDE;
                let logprobs = self.process.logprobs(&of(&context, document), &of(part, document))?;
                answer.extend(logprobs.into_iter().map(|logprob| logprob as f32));
            }
            let seed = u64::from(target[0]) + 1_000_000 * context.len() as u64 + 1_000_000_000 * target.len() as u64;
            let uniform: f64 = ChaCha8Rng::seed_from_u64(seed).random();
            answer[0] += (self.noise * 12_f64.sqrt() * (uniform - 0.5)) as f32;
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
    Plan::of_texts((0..120).map(|document| document / 2), design).unwrap()
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
    let source = Separating { source: ExactSource::new(process()), process: process(), noise: 0.3 };
    let estimates = run(&source, &documents, &plan, None, |_| {}).await.unwrap();
    for check in of_additivity(&estimates.consistency) {
        let (value, error) = (check.difference.value, check.difference.error);
        // Three answers with noise for each of the two terms, over 60 pairs.
        let expected = 0.3 * (6.0_f64 / 60.0).sqrt();
        assert!(!check.is_violated && value.abs() < 3.0 * error && (error / expected - 1.0).abs() < 0.35, "{check:?}");
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
