//! The results of a report as CSV files.

use std::fmt::Write as _;

use crate::estimate::PairingErrors;
use crate::report::{Report, Row, documents_csv};
use crate::value::Estimate;

impl Report {
    /// Returns the file name and the CSV text of each table.
    pub(crate) fn tables(&self) -> Vec<(String, String)> {
        let mut tables = vec![
            ("bipartite.csv".to_owned(), self.bipartite_csv()),
            ("pairing.csv".to_owned(), self.pairing_csv()),
            ("fits.csv".to_owned(), self.fits_csv()),
        ];
        if !self.laws.is_empty() {
            tables.push(("laws.csv".to_owned(), self.laws_csv()));
        }
        if !self.local_exponents.is_empty() {
            tables.push(("local-exponents.csv".to_owned(), self.local_exponents_csv()));
        }
        if let Some(terms) = &self.terms {
            tables.push((documents_csv::NAME.to_owned(), terms.csv()));
        }
        tables.extend(self.averaged_tables());
        tables.extend(self.convergence_tables());
        if !self.nll.is_empty() {
            tables.push(("nll.csv".to_owned(), self.nll_csv()));
        }
        if !self.nll_bins.is_empty() {
            tables.push(("nll-bins.csv".to_owned(), self.nll_bins_csv()));
        }
        tables.extend(self.entropy_rate_csv().map(|csv| ("entropy-rate.csv".to_owned(), csv)));
        tables.extend(self.divergence_csv().map(|csv| ("divergence.csv".to_owned(), csv)));
        tables.extend(self.two_point_csv().map(|csv| ("two-point.csv".to_owned(), csv)));
        tables
    }

    fn bipartite_csv(&self) -> String {
        let mut csv = "ratio,length,split,series,value,error,low,high,unit\n".to_owned();
        for row in &self.rows {
            for series in self.series() {
                let Some(estimate) = row.get(series) else { continue };
                let (point, cells, unit) = (row.estimates, cells(&estimate), self.unit.name());
                let (ratio, length, split) = (point.ratio, point.length, point.split);
                let _ = writeln!(csv, "{ratio},{length},{split},{},{cells},{unit}", series.name());
            }
        }
        csv
    }

    /// Returns two standard errors of the direct estimate at each point: with the same `y` in both terms, and with the
    /// partner's `y` in the marginal term.
    fn pairing_csv(&self) -> String {
        let mut csv = "ratio,length,split,same,crossed,unit\n".to_owned();
        for Row { estimates: point, .. } in &self.rows {
            let (ratio, length, split, PairingErrors { same, crossed }) =
                (point.ratio, point.length, point.split, point.pairing_errors);
            let _ = writeln!(csv, "{ratio},{length},{split},{same},{crossed},{}", self.unit.name());
        }
        csv
    }

    fn fits_csv(&self) -> String {
        let mut csv =
            "ratio,series,method,amplitude,exponent,exponent_error,low,high,bias,bias_at_bound,unit\n".to_owned();
        let show = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
        for fit in &self.fits {
            let (name, ratio, fit, unit) = (fit.series.name(), fit.ratio, &fit.fit, self.unit.name());
            let [low, high] = [0, 1].map(|end| show(fit.exponent_interval.map(|ends| ends[end])));
            let (error, bias, method) = (show(fit.exponent_error), show(fit.bias), fit.method.name());
            let (amplitude, exponent, at_bound) = (fit.amplitude, fit.exponent, fit.bias_at_bound);
            let _ = writeln!(
                csv,
                "{ratio},{name},{method},{amplitude},{exponent},{error},{low},{high},{bias},{at_bound},{unit}"
            );
        }
        csv
    }

    fn nll_csv(&self) -> String {
        let mut csv = "position,value,error,low,high,unit\n".to_owned();
        for (position, estimate) in self.nll.iter().enumerate() {
            let _ = writeln!(csv, "{},{},{}", position + 1, cells(estimate), self.unit.name());
        }
        csv
    }

    fn nll_bins_csv(&self) -> String {
        let mut csv = "first,last,value,error,low,high,unit\n".to_owned();
        for bin in &self.nll_bins {
            let _ = writeln!(csv, "{},{},{},{}", bin.first, bin.last, cells(&bin.estimate), self.unit.name());
        }
        csv
    }
}

/// Returns four cells: the value, its error, and the two ends of its interval, which are empty if there is no interval.
pub(crate) fn cells(estimate: &Estimate) -> String {
    let Estimate { value, error, interval } = estimate;
    match interval {
        Some([low, high]) => format!("{value},{error},{low},{high}"),
        None => format!("{value},{error},,"),
    }
}
