//! `surprisal bench`: load-tests one server, or compares two.

use std::path::{Path, PathBuf};
use std::time::Duration;

use surprisal_load::{Comparison, Endpoint, Load, Options, Outcome, Report, Target, Workload, measure};

use crate::arguments::parse_seconds;
use crate::error::Error;
use crate::output::print_result;
use crate::progress::load::{LoadBar, MeasurementEnd};
use crate::runtime::block_on;

/// The fractions of a server's capacity that `--sweep` offers it.
const SWEEP_FRACTIONS: [f64; 6] = [0.25, 0.5, 0.75, 1.0, 1.5, 2.0];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The server, as [API+]http://HOST:PORT; API is surprisal, vllm, sglang, openai or llamacpp
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    url: Endpoint,
    /// Two servers to be measured in turns, or two results (.json) of the same loads: prints the first's ratios to the second's
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with = "url")]
    compare: Option<Vec<String>>,
    /// The API key, if the server wants one
    #[arg(long, env = "SURPRISAL_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Number of token ids, where the server does not tell
    #[arg(long)]
    vocab: Option<u32>,
    #[command(flatten)]
    workload: WorkloadArgs,
    #[command(flatten)]
    load: LoadArgs,
    /// Write results (JSON) and load curves (HTML, SVG) into this folder
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// The requests.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Workload")]
struct WorkloadArgs {
    /// documents, pairs, splits or mixed; or a file of recorded requests, a JSON object a line
    #[arg(long, default_value = "pairs")]
    workload: String,
    /// Tokens of a document, or of a text that is split
    #[arg(long, default_value_t = 512)]
    length: usize,
    /// Contexts of a request (pairs)
    #[arg(long, default_value_t = 1)]
    contexts: usize,
    /// Tokens of a context (pairs, mixed)
    #[arg(long, default_value_t = 256)]
    context_length: usize,
    /// Targets of a request, each scored after each context (pairs)
    #[arg(long, default_value_t = 8)]
    targets: usize,
    /// Tokens of a target (pairs, mixed)
    #[arg(long, default_value_t = 32)]
    target_length: usize,
    /// Contexts that all requests share (pairs, mixed)
    #[arg(long, default_value_t = 16)]
    prefixes: usize,
    /// The part of requests that are short, and waited for (mixed)
    #[arg(long, default_value_t = 0.5)]
    interactive: f64,
    /// Decides every request and when it is sent; what a server was asked before with the same seed may be in its cache
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// The load, and the time it lasts.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Load")]
struct LoadArgs {
    /// Clients that wait for their answers; several numbers are measured one after the other
    #[arg(long, value_delimiter = ',', default_value = "8")]
    clients: Vec<usize>,
    /// Requests a second that do not wait for answers, instead; several are measured one after the other
    #[arg(long, value_delimiter = ',', conflicts_with = "clients")]
    rate: Vec<f64>,
    /// Send at even intervals, not as a Poisson process
    #[arg(long)]
    even: bool,
    /// Find out how much the server takes with --clients, then offer it 0.25, 0.5, 0.75, 1, 1.5 and 2 times as much
    #[arg(long, conflicts_with = "rate")]
    sweep: bool,
    /// Measure every load so often
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 10.0, value_parser = parse_seconds)]
    duration: f64,
    /// Seconds of load before each measurement
    #[arg(long, default_value_t = 2.0, value_parser = parse_seconds)]
    warm_up: f64,
    /// End each measurement after so many requests instead
    #[arg(long)]
    requests: Option<u64>,
    /// Requests in flight at most, with --rate or --sweep
    #[arg(long, default_value_t = 256)]
    connections: usize,
    /// Seconds after which a request without an answer has failed
    #[arg(long, default_value_t = 120.0, value_parser = parse_seconds)]
    timeout: f64,
    /// Requests asked again at the end, to see whether the answers have the same bits
    #[arg(long, default_value_t = 8)]
    repeats: usize,
}

impl WorkloadArgs {
    /// Returns the workload, or reads it from a file of recorded requests.
    fn workload(&self) -> Result<Workload, Error> {
        let &Self { length, contexts, context_length, targets, target_length, prefixes, interactive, .. } = self;
        Ok(match self.workload.as_str() {
            "documents" => Workload::Documents { length },
            "pairs" => Workload::Pairs { contexts, context_length, targets, target_length, prefixes },
            "splits" => Workload::Splits { length },
            "mixed" => Workload::Mixed { length, interactive, context_length, target_length, prefixes },
            path if Path::new(path).is_file() => Workload::trace(Path::new(path))?,
            other => {
                let known = "documents, pairs, splits, mixed, or a file that exists";
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

    /// Returns a load that sends requests at a rate, whether they are answered or not.
    fn open_loop(&self, rate: f64) -> Load {
        if self.even { Load::Constant { rate } } else { Load::Poisson { rate } }
    }

    /// Returns the loads of `--rate`, or else those of `--clients`.
    fn loads(&self) -> Vec<Load> {
        match self.rate.is_empty() {
            true => self.clients.iter().map(|&clients| Load::Closed { clients }).collect(),
            false => self.rate.iter().map(|&rate| self.open_loop(rate)).collect(),
        }
    }
}

/// Compares two results, measures two servers and compares them, or measures one.
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
    /// Measures every load on every server in turn.
    async fn measure(&self, urls: Vec<Endpoint>) -> Result<Vec<Report>, Error> {
        let (workload, options) = (self.workload.workload()?, self.load.options(self.workload.seed));
        let mut targets = Vec::new();
        for url in urls {
            targets.push(Target::discover(url, self.api_key.clone(), self.vocab).await?);
        }
        // Both servers get the same requests, so these use the smaller vocabulary.
        if let Some(smallest) = targets.iter().map(|target| target.vocabulary).min() {
            targets.iter_mut().for_each(|target| target.vocabulary = smallest);
        }
        let mut reports: Vec<Report> = targets.iter().map(|target| Report::new(target, &workload, &options)).collect();
        let loads = self.loads(&targets, &workload, &options).await?;
        let mut options = options;
        for load in loads {
            for _ in 0..self.load.rounds {
                // New requests for every measurement, the same for each server.
                options.stream += 1;
                for (target, report) in targets.iter().zip(&mut reports) {
                    report.outcomes.push(measure_with_progress(target, &workload, load, &options).await?);
                }
            }
        }
        Ok(reports)
    }

    /// Returns the loads of the flags; with `--sweep`, fractions and multiples of the first server's capacity.
    async fn loads(&self, targets: &[Target], workload: &Workload, options: &Options) -> Result<Vec<Load>, Error> {
        let loads = self.load.loads();
        let (true, Some(target), Some(&largest)) = (self.load.sweep, targets.first(), loads.last()) else {
            return Ok(loads);
        };
        let capacity = measure_with_progress(target, workload, largest, options).await?.requests_per_second;
        if capacity <= 0.0 {
            let reason = format!("--sweep: {} answered nothing within {} s", target.endpoint, self.load.duration);
            return Err(Error::Usage(reason + "; try a longer --duration or smaller requests"));
        }
        Ok(SWEEP_FRACTIONS.iter().map(|fraction| self.load.open_loop(fraction * capacity)).collect())
    }

    /// Writes the results and their curves into the folder of `--out`, if there is one.
    fn write(&self, reports: &[Report]) -> Result<(), Error> {
        let Some(out) = &self.out else { return Ok(()) };
        std::fs::create_dir_all(out)?;
        let names: &[&str] = if reports.len() == 1 { &["result.json"] } else { &["first.json", "second.json"] };
        for (report, name) in reports.iter().zip(names) {
            report.write(&out.join(name))?;
        }
        Report::write_curves(reports, &out.join("curves.svg"))?;
        Report::write_curves(reports, &out.join("curves.html"))?;
        eprintln!("written: {}, curves.svg and curves.html in {}", names.join(", "), out.display());
        Ok(())
    }
}

/// Measures a load and shows its progress.
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
