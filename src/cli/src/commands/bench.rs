//! `surprisal bench`: load-tests one server, or compares two.

use std::path::{Path, PathBuf};
use std::time::Duration;

use surprisal_load::{Comparison, Endpoint, Load, Options, Outcome, Report, Target, Workload, measure};

use crate::arguments::parse_seconds;
use crate::error::Error;
use crate::output::{create_folder, print_result, print_status};
use crate::progress::load::{LoadBar, MeasurementEnd};
use crate::runtime::block_on;

/// The loads of `--sweep`, as multiples of the server's capacity.
const SWEEP_FRACTIONS: [f64; 6] = [0.25, 0.5, 0.75, 1.0, 1.5, 2.0];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Server to test, as [API+]URL: URL is http://HOST:PORT (no HTTPS), and API is surprisal (the default), vllm, sglang,
    /// openai or llamacpp
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    url: Endpoint,
    /// Two servers to measure in turn, or two result files (.json) with the same loads; prints the ratios of the first
    /// to the second
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with = "url")]
    compare: Option<Vec<String>>,
    /// API key, if the server requires one
    #[arg(long, env = "SURPRISAL_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Vocabulary size, in token ids, if the server does not report it
    #[arg(long)]
    vocab: Option<u32>,
    #[command(flatten)]
    workload: WorkloadArgs,
    #[command(flatten)]
    load: LoadArgs,
    /// Folder for the results (JSON) and load curves (HTML, SVG, PDF)
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// The flags that define the requests.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Workload")]
struct WorkloadArgs {
    /// Kind of requests: documents, pairs, splits or mixed; or a file of recorded requests, one JSON object per line
    #[arg(long, default_value = "pairs")]
    workload: String,
    /// Length of a document, or of a text to split, in tokens (documents, splits, mixed)
    #[arg(long, default_value_t = 512)]
    length: usize,
    /// Contexts per request (pairs)
    #[arg(long, default_value_t = 1)]
    contexts: usize,
    /// Length of a context, in tokens (pairs, mixed)
    #[arg(long, default_value_t = 256)]
    context_length: usize,
    /// Targets per request, each scored after every context (pairs)
    #[arg(long, default_value_t = 8)]
    targets: usize,
    /// Length of a target, in tokens (pairs, mixed)
    #[arg(long, default_value_t = 32)]
    target_length: usize,
    /// Size of the pool of contexts that all requests share (pairs, mixed)
    #[arg(long, default_value_t = 16)]
    prefixes: usize,
    /// Fraction of requests that are short and interactive, from 0 to 1 (mixed)
    #[arg(long, default_value_t = 0.5)]
    interactive: f64,
    /// Seed for the requests and their send times; a server that has seen this seed before may answer from its cache
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// The flags that define the load and its duration.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Load")]
struct LoadArgs {
    /// Number of closed-loop clients, each of which sends its next request once the last one is answered;
    /// comma-separated values are measured in turn
    #[arg(long, value_delimiter = ',', default_value = "8")]
    clients: Vec<usize>,
    /// Open-loop rate, in requests per second, instead of --clients; comma-separated values are measured in turn
    #[arg(long, value_delimiter = ',', conflicts_with = "clients")]
    rate: Vec<f64>,
    /// Send requests at even intervals instead of as a Poisson process
    #[arg(long)]
    even: bool,
    /// Measure the capacity with --clients, then send requests at 0.25, 0.5, 0.75, 1, 1.5 and 2 times that rate
    #[arg(long, conflicts_with = "rate")]
    sweep: bool,
    /// Number of measurements per load
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Length of each measurement, in seconds
    #[arg(long, default_value_t = 10.0, value_parser = parse_seconds)]
    duration: f64,
    /// Length of the warm-up before each measurement, in seconds
    #[arg(long, default_value_t = 2.0, value_parser = parse_seconds)]
    warm_up: f64,
    /// Number of requests per measurement, instead of --duration
    #[arg(long)]
    requests: Option<u64>,
    /// Maximum number of requests in flight, with --rate or --sweep
    #[arg(long, default_value_t = 256)]
    connections: usize,
    /// Timeout of a request, in seconds
    #[arg(long, default_value_t = 120.0, value_parser = parse_seconds)]
    timeout: f64,
    /// Number of requests to repeat at the end, to check that the responses are bit-identical
    #[arg(long, default_value_t = 8)]
    repeats: usize,
}

impl WorkloadArgs {
    /// Returns the workload that the flags define, or reads it from a file of recorded requests.
    fn workload(&self) -> Result<Workload, Error> {
        let &Self { length, contexts, context_length, targets, target_length, prefixes, interactive, .. } = self;
        Ok(match self.workload.as_str() {
            "documents" => Workload::Documents { length },
            "pairs" => Workload::Pairs { contexts, context_length, targets, target_length, prefixes },
            "splits" => Workload::Splits { length },
            "mixed" => Workload::Mixed { length, interactive, context_length, target_length, prefixes },
            path if Path::new(path).is_file() => Workload::trace(Path::new(path))?,
            other => {
                let known = "documents, pairs, splits, mixed, or an existing file";
                return Err(Error::Usage(format!("--workload is {other}; it must be {known}")));
            }
        })
    }
}

impl LoadArgs {
    /// Returns the options of each measurement.
    fn options(&self, seed: u64) -> Options {
        Options {
            seed,
            stream: 0,
            warm_up: Duration::from_secs_f64(self.warm_up),
            duration: Duration::from_secs_f64(self.duration),
            requests: self.requests,
            connections: self.connections,
            timeout: Duration::from_secs_f64(self.timeout),
            repeats: self.repeats,
        }
    }

    /// Returns a load that sends requests at a fixed rate, without waiting for answers.
    fn open_loop(&self, rate: f64) -> Load {
        if self.even { Load::Constant { rate } } else { Load::Poisson { rate } }
    }

    /// Returns the loads of `--rate` if it is given, otherwise those of `--clients`.
    fn loads(&self) -> Vec<Load> {
        match self.rate.is_empty() {
            true => self.clients.iter().map(|&clients| Load::Closed { clients }).collect(),
            false => self.rate.iter().map(|&rate| self.open_loop(rate)).collect(),
        }
    }
}

/// Compares two results, measures two servers and compares them, or measures one server.
pub(crate) fn run(args: &Args) -> Result<(), Error> {
    match args.compare.as_deref() {
        Some([first, second]) if !first.contains("://") && !second.contains("://") => {
            let (first, second) = (Report::read(Path::new(first))?, Report::read(Path::new(second))?);
            let comparison = Comparison::new(&first, &second)?;
            print_result(&comparison, &comparison, args.json)
        }
        Some(urls) => {
            let urls = urls.iter().map(|url| url.parse()).collect::<Result<Vec<Endpoint>, _>>()?;
            let reports = block_on(args.measure(urls))?;
            if let [first, second] = &reports[..] {
                let comparison = Comparison::new(first, second)?;
                print_result(&comparison, &comparison, args.json)?;
            }
            args.write(&reports)
        }
        None => {
            let reports = block_on(args.measure(vec![args.url.clone()]))?;
            for report in &reports {
                print_result(report, report, args.json)?;
            }
            args.write(&reports)
        }
    }
}

impl Args {
    /// Measures every load on each server in turn.
    async fn measure(&self, urls: Vec<Endpoint>) -> Result<Vec<Report>, Error> {
        let (workload, options) = (self.workload.workload()?, self.load.options(self.workload.seed));
        let mut targets = Vec::new();
        for url in urls {
            targets.push(Target::discover(url, self.api_key.clone(), self.vocab).await?);
        }
        // Both servers get the same requests, so the smaller vocabulary limits the token ids.
        if let Some(smallest) = targets.iter().map(|target| target.vocabulary).min() {
            targets.iter_mut().for_each(|target| target.vocabulary = smallest);
        }
        let mut reports: Vec<Report> = targets.iter().map(|target| Report::new(target, &workload, &options)).collect();
        let loads = self.loads(&targets, &workload, &options).await?;
        let mut options = options;
        for load in loads {
            for _ in 0..self.load.rounds {
                // Each measurement has new requests, the same for all servers.
                options.stream += 1;
                for (target, report) in targets.iter().zip(&mut reports) {
                    report.outcomes.push(measure_with_progress(target, &workload, load, &options).await?);
                }
            }
        }
        Ok(reports)
    }

    /// Returns the loads that the flags define; with `--sweep`, multiples of the first server's capacity.
    async fn loads(&self, targets: &[Target], workload: &Workload, options: &Options) -> Result<Vec<Load>, Error> {
        let loads = self.load.loads();
        let (true, Some(target), Some(&largest)) = (self.load.sweep, targets.first(), loads.last()) else {
            return Ok(loads);
        };
        let capacity = measure_with_progress(target, workload, largest, options).await?.requests_per_second;
        if capacity <= 0.0 {
            let reason = format!("--sweep: {} answered no request within {} s", target.endpoint, self.load.duration);
            return Err(Error::Usage(reason + "; try a longer --duration or smaller requests"));
        }
        Ok(SWEEP_FRACTIONS.iter().map(|fraction| self.load.open_loop(fraction * capacity)).collect())
    }

    /// Writes the results and their curves into the folder of `--out`, if given.
    fn write(&self, reports: &[Report]) -> Result<(), Error> {
        let Some(out) = &self.out else { return Ok(()) };
        create_folder(out)?;
        let names: &[&str] = if reports.len() == 1 { &["result.json"] } else { &["first.json", "second.json"] };
        for (report, name) in reports.iter().zip(names) {
            report.write(&out.join(name))?;
        }
        for name in ["curves.html", "curves.svg", "curves.pdf"] {
            Report::write_curves(reports, &out.join(name))?;
        }
        let names = names.join(", ");
        print_status(format_args!("wrote {names}, curves.html, curves.svg and curves.pdf to {}", out.display()));
        Ok(())
    }
}

/// Measures one load and shows the progress.
async fn measure_with_progress(
    target: &Target,
    workload: &Workload,
    load: Load,
    options: &Options,
) -> Result<Outcome, Error> {
    let time = MeasurementEnd::Time(options.warm_up + options.duration);
    let end = options.requests.map_or(time, MeasurementEnd::Requests);
    let bar = LoadBar::new(&format!("{}, {load}", target.endpoint), end);
    let outcome = measure(target, workload, load, options, &|progress| bar.update(progress)).await?;
    bar.finish(&outcome);
    Ok(outcome)
}
