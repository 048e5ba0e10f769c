//! A server's counters, from its `/metrics`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::connection::Connection;

/// Prefixes of metric names, one per kind of server.
const NAMESPACES: [&str; 3] = ["surprisal_", "vllm:", "sglang:"];

/// The names, without prefix, of the counters to read: those that measure the work of a load.
const NAMES: [&str; 6] = [
    "scored_tokens_total",
    "computed_tokens_total",
    "cached_tokens_total",
    "prompt_tokens_total",
    "prefix_cache_queries_total",
    "prefix_cache_hits_total",
];

/// Counters of a server, by name without the prefix. Counters that the server lacks are absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters(pub BTreeMap<String, f64>);

impl Counters {
    /// Reads the server's counters; `None` if the server has none.
    pub(crate) async fn scrape(connection: &mut Connection) -> Option<Self> {
        let response = connection.get("/metrics").await.ok().filter(|response| response.status == 200)?;
        let counters = Self::parse(&String::from_utf8_lossy(&response.body));
        (!counters.0.is_empty()).then_some(counters)
    }

    /// Parses the Prometheus text format. Sums the samples of a counter over its labels.
    ///
    /// ```
    /// let text = "# TYPE vllm:prompt_tokens_total counter\nvllm:prompt_tokens_total{model=\"a b\"} 3\n";
    /// assert_eq!(surprisal_load::Counters::parse(text).0["prompt_tokens_total"], 3.0);
    /// ```
    pub fn parse(text: &str) -> Self {
        let mut counters = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, rest)) = line.split_at_checked(line.find(['{', ' ']).unwrap_or(line.len())) else {
                continue;
            };
            let Some(name) = NAMESPACES.iter().find_map(|space| name.strip_prefix(space)) else { continue };
            // A label may contain a space, but a value does not.
            let value = rest.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
            if let (Some(value), true) = (value, NAMES.contains(&name)) {
                *counters.entry(name.to_owned()).or_insert(0.0) += value;
            }
        }
        Self(counters)
    }

    /// Returns the increases since `before`.
    pub(crate) fn since(mut self, before: &Self) -> Self {
        for (name, value) in &mut self.0 {
            *value -= before.0.get(name).copied().unwrap_or(0.0);
        }
        self
    }

    /// Returns the fraction of looked-up tokens that the prefix cache had; `None` if the server counts no such tokens.
    pub fn hit_rate(&self) -> Option<f64> {
        let count = |name: &str| self.0.get(name).copied();
        let queries = count("prefix_cache_queries_total").filter(|&queries| queries > 0.0)?;
        Some(count("prefix_cache_hits_total")? / queries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_over_labels_and_subtracted() {
        let text = "# HELP x\nsurprisal_scored_tokens_total 7\nsurprisal_other_total 5\nother_scored_tokens_total 5\n\
                    surprisal_prefix_cache_queries_total{a=\"b c\"} 10\nsurprisal_prefix_cache_queries_total{a=\"d\"} 30\n\
                    surprisal_prefix_cache_hits_total 10\n";
        let now = Counters::parse(text);
        assert_eq!((now.0.len(), now.0["prefix_cache_queries_total"]), (3, 40.0));
        assert_eq!(now.hit_rate(), Some(0.25));
        let before = Counters::parse("surprisal_scored_tokens_total 3");
        assert_eq!(now.since(&before).0["scored_tokens_total"], 4.0);
    }
}
