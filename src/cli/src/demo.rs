//! `surprisal demo`: the whole path once, on a process whose mutual information is known.
//!
//! It writes the oracle checkpoint, serves it on a loopback port, samples documents, asks `/logprobs` over the socket as
//! any client would, and shows the estimates beside the truth.

use std::path::PathBuf;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use surprisal_estimator::{
    Correction, HttpOptions, HttpSource, LogprobSource, NgramEntropy, Pairing, Plan, Report, SantaFe,
};

use crate::error::Error;
use crate::progress::TokenBar;
use crate::serve::{bind, curl, stop_signal, url};
use crate::served::{Served, santa_fe};
use crate::settings::Settings;
use crate::{block_on_beside_engine, estimate};

const SPLITS: [usize; 9] = [2, 4, 8, 16, 32, 64, 128, 256, 512];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Documents to sample
    #[arg(long, default_value_t = 64)]
    documents: usize,
    /// Seed of the documents and of their pairing
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder for report.html and report.json
    #[arg(long, default_value = "surprisal-demo")]
    out: PathBuf,
    /// Leave the server running afterwards, until Ctrl-C
    #[arg(long)]
    keep_serving: bool,
    /// Port to listen on; 0 takes any free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let settings = Settings { port: args.port, ..Settings::default() };
    let process = santa_fe()?;
    block_on_beside_engine(async {
        let listener = bind(&settings.host, settings.port).await?;
        let url = url("http", &listener)?;
        let served = Served::load(&settings).await?;
        let tokenizer = served.tokenizer.clone();
        eprintln!("serving the oracle on {url}");
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let shutdown = async {
            let _ = stopped.await;
        };
        let server = tokio::spawn(surprisal_server::serve(listener, served.app(settings.server), shutdown));

        let report = measure(args, &url, &process).await?;
        estimate::write(&report, &args.out)?;
        if args.json {
            println!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            print!("{}", report.table());
        }

        let document = process.sample(6, &mut ChaCha8Rng::seed_from_u64(args.seed));
        let (context, target) = (tokenizer.decode(&document[..4])?, tokenizer.decode(&document[4..])?);
        if args.keep_serving {
            eprintln!("still serving; try: {}", curl(&url, &context, &target));
            stop_signal().await;
        } else {
            eprintln!("to ask it yourself: surprisal serve, then {}", curl("http://127.0.0.1:8000", &context, &target));
        }
        let _ = stop.send(());
        server.await.map_err(std::io::Error::other)??;
        Ok(())
    })
}

/// Samples documents, asks the server about them, and puts the truth beside the estimates.
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
            "{} documents of {} tokens, {} symbols with Zipf exponent 1.3, seed {}",
            args.documents,
            plan.window(),
            process.probabilities().len(),
            args.seed
        ),
    ))
}
