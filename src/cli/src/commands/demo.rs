//! `surprisal demo`: serves the built-in oracle, estimates its mutual information, and compares the estimates with the
//! exact values.
//!
//! The demo writes the oracle's checkpoint and serves it on a loopback port. It samples documents from the process that
//! the oracle predicts, sends them to `/logprobs` over HTTP like any client, and prints the estimates and the exact
//! values.

use std::path::PathBuf;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use surprisal_estimator::{
    Correction, HttpOptions, HttpSource, LogprobSource, NgramEntropy, Pairing, Plan, Report, SantaFe,
};
use surprisal_model::oracle::OracleSpec;

use crate::error::Error;
use crate::listener::{base_url, bind, curl_command};
use crate::model::loaded::LoadedModel;
use crate::output::{print_result, print_status, write_report};
use crate::progress::tokens::TokenBar;
use crate::runtime::block_on_beside_engine;
use crate::settings::Settings;
use crate::signals::stop_signals;

/// The length of the first part at each point of the report, in tokens.
const SPLITS: [usize; 9] = [2, 4, 8, 16, 32, 64, 128, 256, 512];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Number of documents to sample
    #[arg(long, default_value_t = 64)]
    documents: usize,
    /// Seed for the documents, their pairing and the bootstrap
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder for the report (HTML, JSON, charts as SVG and PDF, and tables as CSV)
    #[arg(long, default_value = "surprisal-demo")]
    out: PathBuf,
    /// Keep the server running afterwards, until Ctrl-C
    #[arg(long)]
    keep_serving: bool,
    /// Port to listen on; 0 picks a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Serves the oracle, runs the measurement, and prints an example request.
pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let settings = Settings { port: args.port, ..Settings::default() };
    let process = oracle_process()?;
    block_on_beside_engine(async {
        let listener = bind(&settings.host, settings.port).await?;
        let url = base_url("http", &listener)?;
        let model = LoadedModel::load(&settings).await?;
        let tokenizer = model.tokenizer.clone();
        print_status(format_args!("serving the oracle on {url}"));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let shutdown = async {
            let _ = stopped.await;
        };
        let server = tokio::spawn(surprisal_server::serve(listener, model.into_app(settings.server), shutdown));

        let report = measure(args, &url, &process).await?;
        write_report(&report, &args.out)?;
        print_result(&report, report.table(), args.json)?;

        let document = process.sample(6, &mut ChaCha8Rng::seed_from_u64(args.seed));
        let (context, target) = (tokenizer.decode(&document[..4])?, tokenizer.decode(&document[4..])?);
        if args.keep_serving {
            print_status(format_args!("still serving; try: {}", curl_command(&url, &context, &target)));
            stop_signals(1).await;
        } else {
            print_status(format_args!(
                "to query the oracle yourself, run `surprisal serve`, then: {}",
                curl_command("http://127.0.0.1:8000", &context, &target)
            ));
        }
        let _ = stop.send(());
        server.await.map_err(std::io::Error::other)??;
        Ok(())
    })
}

/// Returns the process that the built-in oracle predicts.
fn oracle_process() -> Result<SantaFe, Error> {
    let OracleSpec { probabilities, doubt, .. } = OracleSpec::built_in();
    Ok(SantaFe::from_probabilities(probabilities, doubt)?)
}

/// Samples documents, estimates their mutual information through the server, and adds the exact values.
async fn measure(args: &Args, url: &str, process: &SantaFe) -> Result<Report, Error> {
    let source = HttpSource::connect(url, HttpOptions::default()).await?;
    let plan = Plan::new(args.documents, &SPLITS, Pairing::Same, args.seed)?;
    let mut rng = ChaCha8Rng::seed_from_u64(args.seed);
    let documents: Vec<Vec<u32>> = (0..plan.documents()).map(|_| process.sample(plan.window(), &mut rng)).collect();
    let entropy = NgramEntropy::of_texts(documents.iter().map(Vec::as_slice), 2)?;
    let mut bar = TokenBar::new("scoring");
    let correction = Some(Correction::new(entropy));
    let estimates =
        surprisal_estimator::run(&source, &documents, &plan, correction, |progress| bar.update(progress)).await?;
    Ok(Report::new("The Santa Fe process, measured", source.model(), &estimates).with_truth(process).with_note(
        format!(
            "{} documents of {} tokens, {} symbols with Zipf exponent {}, seed {}",
            args.documents,
            plan.window(),
            process.probabilities().len(),
            OracleSpec::BUILT_IN_EXPONENT,
            args.seed
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The demo compares estimates from the oracle with exact values of the process, so both must have the same
    /// probabilities.
    #[test]
    fn the_built_in_oracle_predicts_the_santa_fe_process_to_the_bit() {
        let (oracle, process) = (OracleSpec::built_in(), SantaFe::new(128, 1.3, 1e-6).unwrap());
        let bits = |probabilities: &[f64]| probabilities.iter().map(|p| p.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&oracle.probabilities), bits(process.probabilities()));
        assert_eq!(oracle.doubt.to_bits(), process.doubt().to_bits());
        assert_eq!(oracle.context_length, 2048);
    }
}
