//! The table of estimates.

use surprisal_chart::escape_quotes as escape;

use crate::estimate::PairingErrors;
use crate::number::significant;
use crate::report::Report;
use crate::report::html::table_section;

impl Report {
    pub(super) fn estimates_section(&self) -> String {
        let (heads, rows) = self.cells();
        let mut heads: Vec<String> = heads.into_iter().map(escape).collect();
        heads.extend(["σ, same y", "σ, partner’s y"].map(str::to_owned));
        let mut table = Vec::with_capacity(rows.len());
        for (cells, row) in rows.into_iter().zip(&self.rows) {
            let PairingErrors { same, crossed } = row.estimates.pairing_errors;
            let errors = [same, crossed].map(|error| significant(error, 3));
            table.push(cells.into_iter().chain(errors).map(|cell| escape(&cell)).collect());
        }
        let note = format!(
            "<p class=\"small\">Of a text’s L tokens, the first ℓ are x and the rest are y. Estimates are means ± \
             standard errors, in {}; values without an error are exact. The columns σ are the direct estimate’s \
             standard error: with the same y in both terms, and with the partner document’s y in the marginal \
             term.</p>\n",
            self.unit.name(),
        );
        table_section("Estimates", false, &heads, &table, &note)
    }
}
