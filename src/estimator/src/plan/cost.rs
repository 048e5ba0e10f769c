//! The cost of a plan in token-forwards, and the display of a plan.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::plan::Plan;
use crate::plan::query::PlannedQuery;

/// The cost of a plan in token-forwards. A token-forward is one token, BOS included, that goes through the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// The number of queries.
    pub queries: u64,
    /// Token-forwards of the L2M paper's scripts, in which every sequence runs to the window's end.
    pub scripts: u64,
    /// Token-forwards of the plan's queries if each is computed from its beginning.
    pub apart: u64,
    /// Token-forwards of the plan's queries if each shared prefix is computed once, as on a server that caches the keys
    /// and values of every token.
    pub shared: u64,
}

impl Plan {
    /// Returns the plan's cost.
    ///
    /// The L2M paper's scripts score each document's whole window. For each split, they also score the document's `y`,
    /// up to the window's end, once after BOS and once after each context from another document. This does not depend
    /// on the ratios.
    pub fn cost(&self) -> Cost {
        let (documents, window) = (self.documents() as u64, self.window() as u64);
        let (count, total) = (self.splits().len() as u64, self.splits().iter().sum::<usize>() as u64);
        let crossed = self.design().negatives as u64;
        let sequence = |query: &PlannedQuery| query.sequence_length() as u64;
        let shared = |query: &PlannedQuery| match query {
            PlannedQuery::Crossed { .. } => query.target_length() as u64,
            // The first document's x is in its whole window, and its y in its marginal query.
            PlannedQuery::Joint { split, .. } => sequence(query) - 1 - *split as u64,
            PlannedQuery::JointMarginal { split, end, .. } => 1 + (end - split) as u64,
            PlannedQuery::Whole { .. } | PlannedQuery::Marginal { .. } => sequence(query),
        };
        Cost {
            queries: self.queries().len() as u64,
            scripts: documents * (1 + window + count * (1 + crossed) * (1 + window) - total),
            apart: self.queries().iter().map(sequence).sum(),
            shared: self.queries().iter().map(shared).sum(),
        }
    }
}

/// Formats the plan's size, and its token-forwards compared with those of the L2M paper's scripts.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cost = self.cost();
        let list = |numbers: &[usize]| numbers.iter().map(ToString::to_string).collect::<Vec<_>>();
        let ratios = list(&self.design().ratios).join(", ");
        writeln!(f, "{} documents of {} tokens, L/ℓ = {ratios}", self.documents(), self.window())?;
        writeln!(f, "splits ℓ: {}", list(self.splits()).join(" "))?;
        if self.design().negatives > 1 {
            writeln!(f, "{} contexts from other documents per y", self.design().negatives)?;
        }
        if !self.design().additivity.is_empty() {
            writeln!(f, "two unrelated documents together at ℓ: {}", list(&self.design().additivity).join(" "))?;
        }
        writeln!(f, "{} queries; token-forwards (total, per document, saving):", with_separators(cost.queries))?;
        for (name, tokens) in [
            ("the L2M paper's scripts", cost.scripts),
            ("this plan, prefixes recomputed", cost.apart),
            ("this plan, prefixes shared", cost.shared),
        ] {
            let saving = cost.scripts as f64 / tokens as f64;
            let each = with_separators(tokens / self.documents() as u64);
            writeln!(f, "  {name:<32}{:>15}{each:>10}{saving:>7.1}x", with_separators(tokens))?;
        }
        Ok(())
    }
}

/// Formats `1234567` as `1,234,567`.
fn with_separators(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Design, PAPER_SPLITS, Pairing};

    /// Returns a plan with the L2M paper's protocol: 2049 tokens per sample (BOS included), splits 2 to 1024.
    fn paper(documents: usize) -> Plan {
        let splits = (1..=10).map(|power| 1 << power).collect();
        Plan::of(documents, Design { splits, ratios: vec![2, 3, 4], window: 2048, ..Design::default() }).unwrap()
    }

    #[test]
    fn the_plan_costs_a_quarter_of_the_papers_scripts() {
        let cost = paper(10).cost();
        assert_eq!(cost.scripts / 10, 40_983);
        assert_eq!(cost.shared / 10, 10_239);
        assert_eq!(cost.queries, 10 * 21);
    }

    #[test]
    fn the_display_shows_the_saving() {
        let text = Plan::new(1000, &PAPER_SPLITS, Pairing::Same, 0).unwrap().to_string();
        assert!(text.contains("1000 documents of 1024 tokens, L/ℓ = 2\n"), "{text}");
        assert!(text.contains("19,000 queries"), "{text}");
        assert!(text.contains("3,078,000"), "{text}");
        let text = paper(100).to_string();
        assert!(text.contains("L/ℓ = 2, 3, 4") && text.contains("4,098,300    40,983"), "{text}");
        assert!(text.contains("1,023,900    10,239    4.0x"), "{text}");
    }
}
