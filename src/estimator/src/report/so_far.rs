//! The estimates during a run, as text and in another unit.

use crate::estimate::{EstimatesSoFar, PointSoFar, SeriesSoFar};
use crate::number::with_interval;
use crate::report::conclusion::FEW_TEXTS;
use crate::unit::Unit;
use crate::value::Estimate;

impl EstimatesSoFar {
    /// Converts all estimates to a unit.
    #[must_use]
    pub fn in_unit(&self, unit: Unit) -> Self {
        let mut converted = Self { unit, ..self.clone() };
        let factor = self.unit.nats() / unit.nats();
        let points = converted.series.iter_mut().flat_map(|series| &mut series.points);
        points.for_each(|point| point.estimate.scale(factor));
        converted
    }

    /// Returns the points with the longest `L` of each ratio, in increasing order of the ratio.
    pub fn longest(&self) -> Vec<PointSoFar> {
        let mut longest: Vec<PointSoFar> = Vec::new();
        for point in self.series.first().map_or(&[][..], |series| &series.points) {
            match longest.last_mut() {
                Some(last) if last.ratio == point.ratio => *last = *point,
                _ => longest.push(*point),
            }
        }
        longest
    }

    /// Returns a line for the longest `L` of each ratio, with the estimates and their 95 % intervals:
    /// `L = 1024: direct 10.6 [9.7, 11.5], vCLUB 31 [22, 40]`. The last line has the unit and the size of the sample:
    /// `nats, from 24 of 160 documents (4 texts: indicative)`.
    pub fn lines(&self) -> Vec<String> {
        let longest = self.longest();
        let mut lines = Vec::with_capacity(longest.len() + 1);
        for &PointSoFar { ratio, length, .. } in &longest {
            let at = if longest.len() > 1 { format!("L/ℓ = {ratio}, L = {length}") } else { format!("L = {length}") };
            let shown = self
                .series
                .iter()
                .filter_map(|series| Some(format!("{} {}", series.series.name(), series.text(ratio, length)?)));
            lines.push(format!("{at}: {}", shown.collect::<Vec<String>>().join(", ")));
        }
        lines.push(self.sample_line());
        lines
    }

    /// Returns the unit and the size of the sample; of each sample, if the series have different ones.
    fn sample_line(&self) -> String {
        let sizes = || self.series.iter().map(|series| (series.documents, series.texts));
        let parts: Vec<String> = match sizes().next() {
            Some(first) if sizes().all(|size| size == first) => self.series[..1].iter().map(|s| self.size(s)).collect(),
            _ => self.series.iter().map(|series| format!("{} {}", series.series.name(), self.size(series))).collect(),
        };
        format!("{}, {}", self.unit.name(), parts.join(", "))
    }

    fn size(&self, SeriesSoFar { documents, texts, .. }: &SeriesSoFar) -> String {
        let all = self.documents;
        let plural = if *texts == 1 { "text" } else { "texts" };
        // With one text, intervals are over its windows.
        let indicative = if (2..FEW_TEXTS).contains(texts) { ": indicative" } else { "" };
        format!("from {documents} of {all} documents ({texts} {plural}{indicative})")
    }
}

impl SeriesSoFar {
    /// Returns the estimate at a point; `None` if the plan does not have it.
    pub fn at(&self, ratio: usize, length: usize) -> Option<Estimate> {
        let point = self.points.iter().find(|point| (point.ratio, point.length) == (ratio, length))?;
        Some(point.estimate)
    }

    /// Returns the estimate at a point with its 95 % interval, such as `10.6 [9.7, 11.5]`; `None` if the plan does not
    /// have the point.
    pub fn text(&self, ratio: usize, length: usize) -> Option<String> {
        let Estimate { value, interval, .. } = self.at(ratio, length)?;
        Some(with_interval(value, interval?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimate::Series;

    fn so_far(vclub_documents: usize, texts: usize) -> EstimatesSoFar {
        let series = |series, documents, value: f64, side: f64| {
            let at = |(ratio, length): (usize, usize)| PointSoFar {
                ratio,
                length,
                split: length / ratio,
                estimate: Estimate { interval: Some([value - side, value + side]), ..Estimate::new(value, side / 2.0) },
            };
            let points = [(2, 64), (2, 128), (3, 96)].map(at).to_vec();
            SeriesSoFar { series, documents, texts, points }
        };
        let series = vec![series(Series::Direct, 24, 10.6, 0.92), series(Series::Vclub, vclub_documents, 31.2, 9.0)];
        EstimatesSoFar { unit: Unit::Nats, documents: 160, series }
    }

    #[test]
    fn lines_show_the_longest_length_of_each_ratio_and_the_sample() {
        let expected = [
            "L/ℓ = 2, L = 128: direct 10.6 [9.7, 11.5], vCLUB 31 [22, 40]",
            "L/ℓ = 3, L = 96: direct 10.6 [9.7, 11.5], vCLUB 31 [22, 40]",
            "nats, from 24 of 160 documents (4 texts: indicative)",
        ];
        assert_eq!(so_far(24, 4).lines(), expected);
        let expected = "bits, direct from 24 of 160 documents (1 text), vCLUB from 3 of 160 documents (1 text)";
        let converted = so_far(3, 1).in_unit(Unit::Bits);
        assert_eq!(converted.lines()[2], expected);
        let value = converted.series[0].at(2, 128).unwrap().value;
        assert!((value * std::f64::consts::LN_2 - 10.6).abs() < 1e-12, "{value}");
        assert!(so_far(24, 10).lines()[2].ends_with("(10 texts)"));
    }
}
