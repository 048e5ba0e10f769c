//! Estimates the mutual information between the two halves of a document of the Santa Fe process, and compares the
//! estimates with the exact values.
//!
//! Run this example with the exact source, which needs no server:
//!
//!     cargo run -p surprisal-estimator --example estimate
//!
//! Or with the URL of a server that serves the built-in oracle (`surprisal serve`):
//!
//!     cargo run -p surprisal-estimator --example estimate -- http://127.0.0.1:8000

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use surprisal_estimator::{
    Correction, Error, ExactSource, HttpOptions, HttpSource, LogprobSource, NgramEntropy, Pairing, Plan, Progress,
    Report, SantaFe, run,
};

#[tokio::main]
async fn main() -> Result<(), Error> {
    // 1. A process with the built-in oracle's parameters, and a plan: 200 documents, split after 2, 4, ..., 128 tokens.
    let process = SantaFe::new(128, 1.3, 1e-6)?;
    let plan = Plan::new(200, &[2, 4, 8, 16, 32, 64, 128], Pairing::Same, 0)?;
    eprint!("{plan}");

    // 2. Documents of token ids, and their bigram entropy for the n-gram correction.
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let documents: Vec<Vec<u32>> = (0..plan.documents()).map(|_| process.sample(plan.window(), &mut rng)).collect();
    let entropy = NgramEntropy::of_texts(documents.iter().map(Vec::as_slice), 2)?;
    let correction = Some(Correction::new(entropy));

    // 3. Log-probabilities from a source, and the estimates.
    let (model, estimates) = match std::env::args().nth(1) {
        Some(url) => {
            let source = HttpSource::connect(&url, HttpOptions::default()).await?;
            (source.model().clone(), run(&source, &documents, &plan, correction, show).await?)
        }
        None => {
            let source = ExactSource::new(process.clone());
            (source.model().clone(), run(&source, &documents, &plan, correction, show).await?)
        }
    };

    // 4. A report, here as text; `Report::write_html` writes an HTML page with charts.
    let report = Report::new("The Santa Fe process", &model, &estimates).with_truth(&process);
    print!("{}", report.table());
    Ok(())
}

fn show(progress: Progress) {
    let end = if progress.queries < progress.total_queries { "\r" } else { "\n" };
    eprint!("{} of {} queries{end}", progress.queries, progress.total_queries);
}
