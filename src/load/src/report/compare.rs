//! Comparison of two reports with the same loads, as ratios.

use std::fmt;

use serde::Serialize;

use super::Report;
use crate::error::Error;
use crate::load::Load;
use crate::outcome::Outcome;
use crate::workload::LatencyClass;

/// A comparison of two reports: ratios of the first report's quantities to the second's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The first server and its model.
    pub first: String,
    /// The second server and its model.
    pub second: String,
    /// Ratios, one per load and quantity.
    pub ratios: Vec<Ratio>,
    /// Failed requests, one entry per load.
    pub failed: Vec<FailureCounts>,
}

/// Failed requests of both servers at one load, in all rounds. The ratios do not include them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FailureCounts {
    /// The load.
    pub load: Load,
    /// Failed requests of the first server.
    pub first: u64,
    /// Failed requests of the second server.
    pub second: u64,
}

/// One measured quantity of both servers at one load, and the ratio between them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// The load.
    pub load: Load,
    /// Name of the quantity, with its unit.
    pub number: String,
    /// The first server's median over the rounds.
    pub first: f64,
    /// The second server's median over the rounds.
    pub second: f64,
    /// Ratios of the rounds, ascending. Their median is the overall ratio.
    pub rounds: Vec<f64>,
}

impl Comparison {
    /// Compares outcomes with the same loads, round by round.
    ///
    /// # Errors
    /// [`Error::Different`] if workloads, seeds, vocabularies, loads or rounds differ.
    pub fn new(first: &Report, second: &Report) -> Result<Self, Error> {
        expect_equal("the workload", &first.workload, &second.workload)?;
        expect_equal("the seed", &first.seed, &second.seed)?;
        expect_equal("the vocabulary", &first.vocabulary, &second.vocabulary)?;
        let loads = |report: &Report| report.outcomes.iter().map(|outcome| outcome.load).collect::<Vec<_>>();
        expect_equal("the loads", &loads(first), &loads(second))?;
        let mut distinct: Vec<Load> = Vec::new();
        for load in loads(first) {
            if !distinct.contains(&load) {
                distinct.push(load);
            }
        }
        let failed = distinct.iter().map(|&load| FailureCounts::at(load, first, second)).collect();
        let ratios = distinct.into_iter().flat_map(|load| ratios_at(load, first, second)).collect();
        let name = |report: &Report| format!("{} at {}", report.model, report.server);
        Ok(Self { first: name(first), second: name(second), ratios, failed })
    }
}

impl FailureCounts {
    fn at(load: Load, first: &Report, second: &Report) -> Self {
        let failed = |report: &Report| -> u64 {
            report.outcomes.iter().filter(|outcome| outcome.load == load).map(Outcome::failed).sum()
        };
        Self { load, first: failed(first), second: failed(second) }
    }
}

/// Checks that a field is the same in both reports.
fn expect_equal<T: PartialEq + Serialize>(field: &'static str, first: &T, second: &T) -> Result<(), Error> {
    if first == second {
        return Ok(());
    }
    let json = |value: &T| serde_json::to_string(value).unwrap_or_default();
    Err(Error::Different { field, first: json(first), second: json(second) })
}

/// Returns the ratios at one load, in the order of [`numbers`].
fn ratios_at(load: Load, first: &Report, second: &Report) -> Vec<Ratio> {
    let Some(outcome) = first.outcomes.iter().find(|outcome| outcome.load == load) else { return Vec::new() };
    numbers(outcome).filter_map(|(number, _)| Ratio::at(load, number, first, second)).collect()
}

/// Returns one quantity at one load, for every round; `None` if a round lacks it.
fn rounds_at(load: Load, name: &str, report: &Report) -> Option<Vec<f64>> {
    let outcomes = report.outcomes.iter().filter(|outcome| outcome.load == load);
    outcomes.map(|outcome| numbers(outcome).find(|(one, _)| *one == name).map(|(_, value)| value)).collect()
}

/// Returns the quantities of an outcome to compare, with their names.
fn numbers(outcome: &Outcome) -> impl Iterator<Item = (&'static str, f64)> {
    let latency = |class, p50, p99| {
        let latency = outcome.latency.get(&class);
        latency.map(|latency| [(p50, latency.p50), (p99, latency.p99)]).into_iter().flatten()
    };
    [("requests/s", outcome.requests_per_second), ("tokens scored/s", outcome.scored_tokens_per_second)]
        .into_iter()
        .chain(latency(LatencyClass::Bulk, "latency p50, ms", "latency p99, ms"))
        .chain(latency(LatencyClass::Interactive, "waited for p50, ms", "waited for p99, ms"))
}

/// Returns the median; NaN for no values.
fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count => f64::midpoint(values[(count - 1) / 2], values[count / 2]),
    }
}

impl Ratio {
    /// Compares one quantity at one load; `None` if a report lacks it, or if no request was answered.
    fn at(load: Load, number: &str, first: &Report, second: &Report) -> Option<Self> {
        let (mut first, mut second) = (rounds_at(load, number, first)?, rounds_at(load, number, second)?);
        let mut rounds: Vec<f64> = first.iter().zip(&second).map(|(first, second)| first / second).collect();
        rounds.sort_unstable_by(f64::total_cmp);
        // Without answers there is no finite ratio.
        if !rounds.iter().all(|ratio| ratio.is_finite()) {
            return None;
        }
        Some(Self { load, number: number.to_owned(), first: median(&mut first), second: median(&mut second), rounds })
    }

    /// Returns the median of the rounds' ratios.
    pub fn median(&self) -> f64 {
        median(&mut self.rounds.clone())
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "first:  {}\nsecond: {}", self.first, self.second)?;
        writeln!(f, "{:<26} {:<18} {:>10} {:>10}  first/second", "load", "", "first", "second")?;
        for ratio in &self.ratios {
            let (load, number) = (ratio.load.to_string(), &ratio.number);
            write!(f, "{load:<26} {number:<18} {:>10.1} {:>10.1}  {:.2}", ratio.first, ratio.second, ratio.median())?;
            match ratio.rounds[..] {
                [low, .., high] => writeln!(f, " ({low:.2} to {high:.2})")?,
                _ => writeln!(f)?,
            }
        }
        for FailureCounts { load, first, second } in
            self.failed.iter().filter(|failed| failed.first + failed.second > 0)
        {
            let load = load.to_string();
            writeln!(f, "{load:<26} {:<18} {first:>10} {second:>10}", "failed")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::client::Target;
    use crate::measure::Options;
    use crate::outcome::Failures;
    use crate::workload::Workload;

    fn report(server: &str, rates: &[f64]) -> Report {
        let target = Target {
            endpoint: server.parse().unwrap(),
            key: None,
            model: "m".into(),
            fingerprint: None,
            vocabulary: 9,
            max_length: None,
        };
        let mut report = Report::new(&target, &Workload::Documents { length: 4 }, &Options::default());
        report.outcomes = rates.iter().map(|&rate| outcome(2, rate)).collect();
        report
    }

    fn outcome(clients: usize, rate: f64) -> Outcome {
        Outcome {
            load: Load::Closed { clients },
            seconds: 1.0,
            requests: 0,
            queries: 0,
            scored_tokens: 0,
            computed_tokens: Some(0),
            cached_tokens: Some(0),
            requests_per_second: rate,
            scored_tokens_per_second: 3.0 * rate,
            latency: BTreeMap::new(),
            refused: 0,
            failures: BTreeMap::new(),
            repeats: None,
            counters: None,
        }
    }

    #[test]
    fn ratios_are_taken_per_round_and_shown_with_their_spread() {
        let (a, b) = (report("http://a", &[10.0, 30.0, 20.0]), report("vllm+http://b", &[10.0, 10.0, 10.0]));
        let comparison = Comparison::new(&a, &b).unwrap();
        let ratio = &comparison.ratios[0];
        assert_eq!((ratio.first, ratio.second, ratio.median()), (20.0, 10.0, 2.0));
        assert_eq!(ratio.rounds, [1.0, 2.0, 3.0]);
        let text = comparison.to_string();
        assert!(text.contains("2.00 (1.00 to 3.00)") && text.contains("m at vllm+http://b"), "{text}");
    }

    /// Without the number of failures, a server that fails quickly would look fast.
    #[test]
    fn failures_of_both_servers_are_shown() {
        let (mut a, b) = (report("http://a", &[1.0, 1.0]), report("http://b", &[1.0, 1.0]));
        assert!(!Comparison::new(&a, &b).unwrap().to_string().contains("failed"));
        for outcome in &mut a.outcomes {
            outcome.failures.insert("status 500".into(), Failures { count: 3, example: "no".into() });
        }
        let comparison = Comparison::new(&a, &b).unwrap();
        assert_eq!(comparison.failed, [FailureCounts { load: Load::Closed { clients: 2 }, first: 6, second: 0 }]);
        let text = comparison.to_string();
        let line = text.lines().find(|line| line.contains("failed")).unwrap();
        assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["2", "clients", "failed", "6", "0"], "{text}");
        let page = Report::html(&[a]);
        assert_eq!(page.matches("<td>–</td><td></td><td>3</td></tr>").count(), 2, "a row even without answers");
    }

    #[test]
    fn different_measurements_are_not_compared() {
        let a = report("http://a", &[1.0]);
        let error = |b: &Report| Comparison::new(&a, b).unwrap_err().to_string();
        let mut b = report("http://b", &[1.0]);
        b.workload = Workload::Documents { length: 5 };
        assert!(error(&b).contains("the workload") && error(&b).contains('5'), "{}", error(&b));
        b = Report { seed: 2, ..report("http://b", &[1.0]) };
        assert!(error(&b).contains("the seed: 1 and 2"), "{}", error(&b));
        assert!(Comparison::new(&a, &report("http://b", &[0.0])).unwrap().ratios.is_empty(), "no finite ratio");
        b = report("http://b", &[1.0, 1.0]);
        assert!(error(&b).contains("the loads"));
    }
}
