//! Estimates on the Santa Fe process beside its known mutual information, without a server:
//! `cargo run -p surprisal-estimator --example santa_fe -- report.html`.

use std::path::Path;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use surprisal_estimator::{
    Correction, Error, ExactSource, LogprobSource, NgramEntropy, PAPER_SPLITS, Pairing, Plan, Report, SantaFe, run,
};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let process = SantaFe::new(2000, 1.6, 1e-3)?;
    let plan = Plan::new(400, &PAPER_SPLITS, Pairing::Same, 0)?;
    eprint!("{plan}");

    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let documents: Vec<_> = (0..plan.documents()).map(|_| process.sample(plan.window(), &mut rng)).collect();
    let entropy = NgramEntropy::of_texts(documents.iter().map(Vec::as_slice), 2)?;

    let source = ExactSource::new(process.clone());
    let correction = Some(Correction::new(entropy));
    let estimates = run(&source, &documents, &plan, correction, |_| {}).await?;
    let report = Report::new("The Santa Fe process", source.model(), &estimates)
        .with_truth(&process)
        .with_note("400 documents sampled with seed 0; 2000 symbols, Zipf exponent 1.6.");

    print!("{}", report.table());
    if let Some(path) = std::env::args_os().nth(1) {
        report.write_html(Path::new(&path))?;
    }
    Ok(())
}
