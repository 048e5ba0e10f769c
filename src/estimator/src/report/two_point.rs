//! Two-point information and the entropies behind it, as text, CSV and HTML.

use std::fmt::Write as _;

use crate::report::Report;
use crate::report::html::table;
use crate::report::text::left_out;
use crate::statistics::{Baseline, EntropyBias, TwoPoint, TwoPointEstimate};
use crate::value::Estimate;

/// The coverage below which a report warns about an entropy.
const LOW_COVERAGE: f64 = 0.9;

/// An entropy in a report, with its bias.
struct Entropy {
    name: String,
    /// `None` for the entropy of pairs, of which the report has only the two-point information.
    estimate: Option<Estimate>,
    bias: EntropyBias,
}

impl Report {
    /// Returns two-point information, its baseline and its fits as lines of text; empty if it was not computed.
    pub(crate) fn two_point_text(&self) -> String {
        let Some(two_point) = &self.two_point else { return String::new() };
        let mut text = format!("\ntwo-point mutual information in {}", self.unit.name());
        if two_point.shuffles > 0 {
            // Writing to a String cannot fail.
            let _ = write!(text, "; baseline from {} shuffles of the tokens, and difference", two_point.shuffles);
        }
        text += ":\n";
        for TwoPointEstimate { distance, estimate, baseline, .. } in &two_point.points {
            let _ = write!(text, "{:>12}   {estimate}", format!("d = {distance}"));
            if let Some(baseline) = baseline {
                let _ = write!(text, "   baseline {}   difference {}", baseline.estimate(), baseline.difference);
            }
            text.push('\n');
        }
        for (name, law) in two_point.laws() {
            let _ = writeln!(text, "{name:>12}   {law}");
        }
        text
    }

    /// Returns the entropies with their coverage and bias as lines of text, followed by warnings; empty if the report
    /// has no entropies.
    pub(crate) fn entropies_text(&self) -> String {
        let entropies = self.entropies();
        if entropies.is_empty() {
            return String::new();
        }
        let mut text =
            format!("\nentropies in {}, with coverage, bias, and range of the estimators:\n", self.unit.name());
        for entropy in &entropies {
            let [value, coverage, bias, methods] = entropy.cells();
            let _ = writeln!(text, "{:>12}   {value}   {coverage}   bias {bias}   {methods}", entropy.name);
        }
        if let Some(warning) = warning(&entropies) {
            let _ = writeln!(text, "warning: {warning}");
        }
        text
    }

    /// Returns the HTML section with two-point information and the entropies; empty if the report has neither.
    pub(crate) fn two_point_section(&self) -> String {
        let mut section = String::new();
        if let Some(two_point) = &self.two_point {
            section += &two_point.table();
            let laws: Vec<String> = two_point.laws().map(|(name, law)| format!("{name}: {law}")).collect();
            let baseline = match two_point.shuffles {
                0 => String::new(),
                shuffles => format!(
                    " The baseline is the same estimate for the same tokens in a random order (mean and standard error \
                     of {shuffles} shuffles)."
                ),
            };
            section += &format!(
                "<p class=\"small\">In {}.{baseline} {}</p>\n",
                self.unit.name(),
                surprisal_chart::escape_quotes(&laws.join("; ")),
            );
        }
        let entropies = self.entropies();
        if !entropies.is_empty() {
            let cells = |entropy: &Entropy| [vec![entropy.name.clone()], entropy.cells().to_vec()].concat();
            let rows: Vec<Vec<String>> = entropies.iter().map(cells).collect();
            let heads = ["entropy of", "value", "coverage", "bias", "four estimators"].map(str::to_owned);
            section += &table(true, &heads, &rows);
            section += "<p class=\"small\">The coverage is the probability that the next item was already counted. The \
                        bias is between the two values if it falls faster than a power of the number of items, but not \
                        faster than its inverse.</p>\n";
            if let Some(warning) = warning(&entropies) {
                section += &format!("<p class=\"small\">{}</p>\n", surprisal_chart::escape_quotes(&warning));
            }
        }
        if section.is_empty() { section } else { format!("<section>\n<h2>Counts</h2>\n{section}</section>\n") }
    }

    /// Returns two-point information as CSV; `None` if it was not computed.
    pub(crate) fn two_point_csv(&self) -> Option<String> {
        let two_point = self.two_point.as_ref()?;
        let mut csv = "distance,pairs,value,error,baseline,baseline_error,baseline_spread,difference,difference_error,\
                       coverage,bias_halved,bias_extrapolated,unit\n"
            .to_owned();
        for TwoPointEstimate { distance, pairs, estimate, bias, baseline } in &two_point.points {
            let Estimate { value, error, .. } = estimate;
            let baseline = baseline.map_or_else(
                || ",,,,".to_owned(),
                |Baseline { value, error, spread, difference }| {
                    format!("{value},{error},{spread},{},{}", difference.value, difference.error)
                },
            );
            let bias = bias.map_or_else(
                || ",,".to_owned(),
                |EntropyBias { coverage, halved, extrapolated, .. }| {
                    format!("{coverage},{halved},{}", extrapolated.map_or_else(String::new, |bias| bias.to_string()))
                },
            );
            let _ = writeln!(csv, "{distance},{pairs},{value},{error},{baseline},{bias},{}", self.unit.name());
        }
        Some(csv)
    }

    /// Returns the entropies of tokens, n-grams and pairs whose bias is known.
    fn entropies(&self) -> Vec<Entropy> {
        let mut entropies = Vec::new();
        let mut add = |name: String, estimate: Option<Estimate>, bias: Option<EntropyBias>| {
            entropies.extend(bias.map(|bias| Entropy { name, estimate, bias }));
        };
        let unigrams = self.corpus.as_ref().map(|corpus| &corpus.unigrams);
        let mut tokens_added = false;
        for ngrams in unigrams.into_iter().chain(&self.ngram_entropy) {
            let name = if ngrams.n == 1 { "tokens".to_owned() } else { format!("{}-grams", ngrams.n) };
            if ngrams.n == 1 && tokens_added {
                continue;
            }
            tokens_added |= ngrams.n == 1;
            add(name, Some(Estimate::new(ngrams.nats, ngrams.error)), ngrams.bias);
        }
        if let Some(two_point) = &self.two_point {
            if !tokens_added {
                add("tokens".to_owned(), Some(two_point.entropy), two_point.bias);
            }
            for point in &two_point.points {
                add(format!("d = {}", point.distance), None, point.bias);
            }
        }
        entropies
    }
}

impl Entropy {
    /// Returns the value, the coverage, the bias, and the range of the estimators.
    fn cells(&self) -> [String; 4] {
        let EntropyBias { coverage, halved, extrapolated, methods: [lowest, highest] } = self.bias;
        [
            self.estimate.map_or_else(|| "–".to_owned(), |estimate| estimate.to_string()),
            format!("{:.1} %", 100.0 * coverage),
            match extrapolated {
                Some(bias) => format!("{halved:.3} to {bias:.3}"),
                None if halved.abs() < 0.0005 => format!("{halved:.3}"),
                None => format!("{halved:.3} or more"),
            },
            format!("{lowest:.3} to {highest:.3}"),
        ]
    }
}

/// Returns a warning about entropies with low coverage; `None` if there are none.
fn warning(entropies: &[Entropy]) -> Option<String> {
    let low = entropies.iter().filter(|entropy| entropy.bias.coverage < LOW_COVERAGE);
    let lowest = low.clone().min_by(|a, b| a.bias.coverage.total_cmp(&b.bias.coverage))?;
    Some(format!(
        "{} of {} entropies have a coverage below {:.0} % (the lowest, {}: {:.1} %). In a longer corpus, many more items \
         would be new, so these entropies are too small by far more than their standard errors. Two-point information \
         is then too large: compare it with its shuffled baseline. An n-gram correction from such counts overshoots: use \
         more text or a smaller n.",
        low.count(),
        entropies.len(),
        100.0 * LOW_COVERAGE,
        lowest.name,
        100.0 * lowest.bias.coverage,
    ))
}

impl Baseline {
    fn estimate(&self) -> Estimate {
        Estimate::new(self.value, self.error)
    }
}

impl TwoPoint {
    /// Returns the points as an HTML table, with their baseline if there is one.
    fn table(&self) -> String {
        let has_baseline = self.shuffles > 0;
        let mut rows = Vec::with_capacity(self.points.len());
        for point in &self.points {
            let mut cells = vec![point.distance.to_string(), point.pairs.to_string(), point.estimate.to_string()];
            let baseline = point.baseline.filter(|_| has_baseline);
            cells.extend(baseline.iter().flat_map(|b| [b.estimate().to_string(), b.difference.to_string()]));
            rows.push(cells);
        }
        let heads = ["d", "pairs", "I(d)", "shuffled baseline", "difference"].map(str::to_owned);
        table(false, if has_baseline { &heads } else { &heads[..3] }, &rows)
    }

    /// Returns the name and the formula of each fitted law.
    fn laws(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        let raw = self.fit.iter().chain(&self.additive).chain(&self.paper);
        let raw = raw.map(|fit| (fit.method.name(), fit.law("d") + &left_out(fit).replace('L', "d")));
        let difference = self.difference_fit.iter().map(|fit| {
            let omitted: Vec<String> = fit.left_out.iter().map(ToString::to_string).collect();
            let omitted = match omitted.is_empty() {
                true => String::new(),
                false => format!("  (without d = {}: less than 3 errors above the baseline)", omitted.join(", ")),
            };
            ("difference", fit.law("d") + &omitted)
        });
        raw.chain(difference)
    }
}
