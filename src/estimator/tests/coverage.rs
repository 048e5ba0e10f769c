//! Coverage of confidence intervals: seeded experiments on each process whose mutual information is known.
#![allow(clippy::unwrap_used)]

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use surprisal_estimator::{Design, Estimates, ExactSource, Gaussian, Plan, Process, SantaFe, run};

/// Enough experiments to measure the coverage with a standard error of 0.7 %. With 200 it is 1.5 %, and the bounds
/// could be missed by chance.
const REPETITIONS: u64 = 1000;
/// Enough documents for the bootstrap intervals to come close to their nominal coverage: with 100 documents, only 91.8 %
/// of them covered the true value of the Gaussian process at split 2.
const DOCUMENTS: usize = 400;
const SPLITS: [usize; 3] = [2, 8, 32];

async fn repeat<P: Process + Clone>(process: &P) -> Vec<Estimates> {
    let source = ExactSource::new(process.clone());
    let mut all = Vec::new();
    for seed in 0..REPETITIONS {
        let design = Design { splits: SPLITS.to_vec(), seed, resamples: 400, ..Design::default() };
        let plan = Plan::of(DOCUMENTS, design).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(1000 + seed);
        let documents: Vec<_> = (0..DOCUMENTS).map(|_| process.sample(plan.window(), &mut rng)).collect();
        all.push(run(&source, &documents, &plan, None, |_| {}).await.unwrap());
    }
    all
}

async fn check<P: Process + Clone>(process: P) {
    let all = repeat(&process).await;
    for (index, split) in SPLITS.into_iter().enumerate() {
        let truth = process.mutual_information(split, split);
        let mean = |of: &dyn Fn(&Estimates) -> f64| all.iter().map(of).sum::<f64>() / REPETITIONS as f64;
        let covered = mean(&|estimates| {
            let [low, high] = estimates.points[index].direct.interval.unwrap();
            f64::from(u8::from((low..=high).contains(&truth)))
        });
        let vclub = mean(&|estimates| estimates.points[index].vclub.value);
        let same = mean(&|estimates| estimates.points[index].pairing_errors.same);
        let crossed = mean(&|estimates| estimates.points[index].pairing_errors.crossed);
        println!(
            "{}, split {split}: truth {truth:.4}, {:.1} % of the intervals cover it; mean vCLUB {vclub:.4}; \
             standard error {same:.4} with the same y, {crossed:.4} with the partner's y",
            process.name(),
            100.0 * covered,
        );
        assert!((0.92..=0.98).contains(&covered), "split {split}: coverage {covered} of the intervals");
        assert!(vclub > truth, "split {split}: vCLUB {vclub} is below {truth}");
        assert!(same < crossed, "split {split}: {same} with the same y, {crossed} with the partner's y");
    }
}

/// The doubt is so small that the direct estimator's limit equals the truth to within rounding.
#[tokio::test]
async fn on_santa_fe_intervals_cover_the_truth() {
    check(SantaFe::new(64, 1.3, 1e-9).unwrap()).await;
}

#[tokio::test]
async fn on_gaussians_intervals_cover_the_truth() {
    check(Gaussian::new(64, 0.6, 0.2).unwrap()).await;
}
