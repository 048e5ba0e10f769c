//! What is asked: streams of requests, each a function of the seed and its index.

use std::path::{Path, PathBuf};

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::Error;

/// Ids below this are special in most vocabularies (unknown, beginning, end) and are not drawn.
const SPECIAL: u32 = 3;

/// Every text begins with this id, so that servers without a beginning-of-text rule are asked the same.
const START: u32 = 0;

/// So many indices has each stream of requests; what two streams ask is different.
pub(crate) const STREAM: u64 = 1 << 40;

/// Streams of random numbers that must not meet.
const FRESH: u64 = 0;
const PREFIX: u64 = 1;
const CHOICE: u64 = 2;

/// The shape of a stream of requests. Token ids are uniform over the vocabulary, and every text begins with id 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Workload {
    /// One new text a request, of `length` tokens, all but the first scored. Nothing is in a cache, unless it was asked before.
    Documents {
        /// Tokens of a text, at least 2.
        length: usize,
    },
    /// `contexts` x `targets` a request: contexts from a pool of `prefixes` that all requests share, new targets.
    Pairs {
        /// Contexts of a request.
        contexts: usize,
        /// Tokens of a context.
        context_length: usize,
        /// Targets of a request.
        targets: usize,
        /// Tokens of a target.
        target_length: usize,
        /// Contexts in the pool.
        prefixes: usize,
    },
    /// Mutual information by splits, as its estimation asks: two new texts x and y of `length` tokens, and at each split
    /// s = 2, 4, .. `length` / 2, s tokens after it: x's given its beginning, y's given x's beginning, y's given nothing.
    Splits {
        /// Tokens of a text, a power of two from 4.
        length: usize,
    },
    /// Documents, and among them short requests of somebody who waits: their latencies are reported apart.
    Mixed {
        /// Tokens of a document.
        length: usize,
        /// The part of all requests that is interactive.
        interactive: f64,
        /// Tokens of an interactive context, from a pool of `prefixes`.
        context_length: usize,
        /// Tokens of an interactive target.
        target_length: usize,
        /// Contexts in the pool.
        prefixes: usize,
    },
    /// What a file says.
    Trace(Trace),
}

/// Recorded requests: a JSON object a line, see [`TraceLine`]. When it ends it begins anew.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// The file.
    pub path: PathBuf,
    /// Its requests, in order.
    #[serde(skip)]
    lines: Vec<Ask>,
    /// How many there are.
    pub requests: usize,
}

/// One line of a trace: texts as token ids.
///
/// ```
/// let line = r#"{"contexts": [[0, 7]], "targets": [[9, 4], [5]], "pairs": [[0, 0], [0, 1]], "class": "interactive"}"#;
/// let line: surprisal_load::TraceLine = serde_json::from_str(line)?;
/// assert_eq!(line.targets[1], [5]);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceLine {
    /// What is given, each at least one token.
    pub contexts: Vec<Vec<u32>>,
    /// What is scored, each at least one token.
    pub targets: Vec<Vec<u32>>,
    /// `[context, target]`; all of them when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pairs: Option<Vec<[usize; 2]>>,
    /// Whose latency it is; bulk when absent.
    #[serde(default)]
    pub class: Class,
}

/// Requests whose latencies are counted together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Work of its own time.
    #[default]
    Bulk,
    /// Somebody waits.
    Interactive,
}

/// One request: the log-probabilities of targets given contexts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// What is given; none is empty.
    pub contexts: Vec<Vec<u32>>,
    /// What is scored; none is empty.
    pub targets: Vec<Vec<u32>>,
    /// `[context, target]`, in the order of the answer.
    pub pairs: Vec<[usize; 2]>,
    /// Whose latency it is.
    pub class: Class,
}

impl Ask {
    fn all(contexts: Vec<Vec<u32>>, targets: Vec<Vec<u32>>, class: Class) -> Self {
        let pairs = (0..contexts.len()).flat_map(|i| (0..targets.len()).map(move |j| [i, j])).collect();
        Self { contexts, targets, pairs, class }
    }

    /// Log-probabilities that are asked for.
    pub fn scored_tokens(&self) -> usize {
        self.pairs.iter().map(|&[_, j]| self.targets[j].len()).sum()
    }

    /// Context and target of each pair.
    pub fn texts(&self) -> impl Iterator<Item = (&[u32], &[u32])> {
        self.pairs.iter().map(|&[i, j]| (&self.contexts[i][..], &self.targets[j][..]))
    }
}

impl Workload {
    /// Reads a trace.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read, has no line, or one that is no request.
    pub fn trace(path: &Path) -> Result<Self, Error> {
        let failed = |reason: String| Error::File { path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        let numbered = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let lines: Vec<Ask> = numbered
            .map(|(i, line)| read_line(line).map_err(|reason| failed(format!("line {}: {reason}", i + 1))))
            .collect::<Result<_, _>>()?;
        if lines.is_empty() {
            return Err(failed("there is no request in it".into()));
        }
        Ok(Self::Trace(Trace { path: path.to_owned(), requests: lines.len(), lines }))
    }

    /// Checks the shape, against what the server takes: its vocabulary, and its longest text if it says so.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field.
    pub fn check(&self, vocabulary: u32, longest: Option<usize>) -> Result<(), Error> {
        if vocabulary <= SPECIAL {
            return Err(Error::invalid("vocabulary", vocabulary, format!("more than {SPECIAL}")));
        }
        let at_least = |field, value: usize, least: usize| match value >= least {
            true => Ok(()),
            false => Err(Error::invalid(field, value, format!("at least {least}"))),
        };
        match *self {
            Self::Documents { length } => at_least("length", length, 2)?,
            Self::Pairs { contexts, context_length, targets, target_length, prefixes } => {
                at_least("contexts", contexts, 1)?;
                at_least("context_length", context_length, 1)?;
                at_least("targets", targets, 1)?;
                at_least("target_length", target_length, 1)?;
                at_least("prefixes", prefixes, contexts)?;
            }
            Self::Splits { length } if length < 4 || !length.is_power_of_two() => {
                return Err(Error::invalid("length", length, "a power of two, at least 4"));
            }
            Self::Splits { .. } => {}
            Self::Mixed { length, interactive, context_length, target_length, prefixes } => {
                at_least("length", length, 2)?;
                at_least("context_length", context_length, 1)?;
                at_least("target_length", target_length, 1)?;
                at_least("prefixes", prefixes, 1)?;
                if !(0.0..=1.0).contains(&interactive) {
                    return Err(Error::invalid("interactive", interactive, "from 0 to 1"));
                }
            }
            Self::Trace(ref trace) => {
                let texts = || trace.lines.iter().flat_map(|ask| ask.contexts.iter().chain(&ask.targets));
                if let Some(id) = texts().flatten().find(|&&id| id >= vocabulary) {
                    return Err(Error::invalid("token id", id, format!("below the vocabulary's size, {vocabulary}")));
                }
            }
        }
        match longest {
            Some(longest) if self.longest() > longest => {
                let limit = format!("at most {longest}, the longest the server takes");
                Err(Error::invalid("length of a text", self.longest(), limit))
            }
            _ => Ok(()),
        }
    }

    /// Tokens of the longest text.
    pub fn longest(&self) -> usize {
        match self {
            Self::Documents { length } | Self::Splits { length } => *length,
            Self::Pairs { context_length, target_length, .. } => context_length + target_length,
            Self::Mixed { length, context_length, target_length, .. } => *length.max(&(context_length + target_length)),
            Self::Trace(trace) => {
                let texts = trace.lines.iter().flat_map(Ask::texts);
                texts.map(|(context, target)| context.len() + target.len()).max().unwrap_or(0)
            }
        }
    }

    /// The request of an index.
    pub fn ask(&self, seed: u64, index: u64, vocabulary: u32) -> Ask {
        let tokens = Tokens { seed, vocabulary };
        match *self {
            Self::Documents { length } => tokens.document(index, length),
            Self::Pairs { contexts, context_length, targets, target_length, prefixes } => {
                let mut rng = tokens.rng(CHOICE, index);
                let first = rng.random_range(0..prefixes as u64);
                // Neighbours in the pool, so that they are different ones.
                let chosen = (0..contexts as u64).map(|i| (first + i) % prefixes as u64);
                let contexts = chosen.map(|i| tokens.text(&mut tokens.rng(PREFIX, i), context_length)).collect();
                let mut rng = tokens.rng(FRESH, index);
                let targets = (0..targets).map(|_| tokens.words(&mut rng, target_length)).collect();
                Ask::all(contexts, targets, Class::Bulk)
            }
            Self::Splits { length } => tokens.splits(index, length),
            Self::Mixed { length, interactive, context_length, target_length, prefixes } => {
                let mut rng = tokens.rng(CHOICE, index);
                if !rng.random_bool(interactive.clamp(0.0, 1.0)) {
                    return tokens.document(index, length);
                }
                let prefix = rng.random_range(0..prefixes as u64);
                let context = tokens.text(&mut tokens.rng(PREFIX, prefix), context_length);
                let target = tokens.words(&mut rng, target_length);
                Ask::all(vec![context], vec![target], Class::Interactive)
            }
            Self::Trace(ref trace) => {
                let place = (index % STREAM) as usize % trace.lines.len().max(1);
                trace.lines.get(place).cloned().unwrap_or_default()
            }
        }
    }
}

fn read_line(line: &str) -> Result<Ask, String> {
    let TraceLine { contexts, targets, pairs, class } =
        serde_json::from_str(line).map_err(|error| error.to_string())?;
    let Some(pairs) = pairs else { return check_ask(Ask::all(contexts, targets, class)) };
    check_ask(Ask { contexts, targets, pairs, class })
}

fn check_ask(ask: Ask) -> Result<Ask, String> {
    let (contexts, targets) = (ask.contexts.len(), ask.targets.len());
    if ask.pairs.is_empty() || ask.contexts.iter().chain(&ask.targets).any(Vec::is_empty) {
        return Err("a request has at least one pair, and no text in it is empty".into());
    }
    match ask.pairs.iter().find(|&&[i, j]| i >= contexts || j >= targets) {
        Some(pair) => Err(format!("pairs has {pair:?}; there are {contexts} contexts and {targets} targets")),
        None => Ok(ask),
    }
}

/// Random texts.
#[derive(Clone, Copy)]
struct Tokens {
    seed: u64,
    vocabulary: u32,
}

impl Tokens {
    /// Numbers that depend on the seed, the stream and the index alone.
    fn rng(self, stream: u64, index: u64) -> ChaCha8Rng {
        let mut key = [0; 32];
        for (bytes, word) in key.chunks_exact_mut(8).zip([self.seed, stream, index]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        ChaCha8Rng::from_seed(key)
    }

    fn words(self, rng: &mut impl Rng, length: usize) -> Vec<u32> {
        (0..length).map(|_| rng.random_range(SPECIAL..self.vocabulary)).collect()
    }

    /// A text from its beginning.
    fn text(self, rng: &mut impl Rng, length: usize) -> Vec<u32> {
        let mut text = self.words(rng, length);
        text[0] = START;
        text
    }

    fn document(self, index: u64, length: usize) -> Ask {
        let mut text = self.text(&mut self.rng(FRESH, index), length);
        let target = text.split_off(1);
        Ask::all(vec![text], vec![target], Class::Bulk)
    }

    fn splits(self, index: u64, length: usize) -> Ask {
        let mut rng = self.rng(FRESH, index);
        let (x, y) = (self.text(&mut rng, length), self.text(&mut rng, length));
        let mut ask = Ask { contexts: vec![vec![START]], ..Ask::default() };
        let splits = (1..).map(|power| 1 << power).take_while(|&split| split < length);
        for split in splits {
            let context = ask.contexts.len();
            let target = ask.targets.len();
            ask.contexts.push(x[..split].to_vec());
            ask.targets.push(x[split..2 * split].to_vec());
            ask.targets.push(y[split..2 * split].to_vec());
            ask.pairs.extend([[context, target], [context, target + 1], [0, target + 1]]);
        }
        ask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIRS: Workload =
        Workload::Pairs { contexts: 2, context_length: 5, targets: 3, target_length: 4, prefixes: 4 };
    const MIXED: Workload =
        Workload::Mixed { length: 16, interactive: 0.25, context_length: 4, target_length: 2, prefixes: 2 };

    #[test]
    fn a_request_depends_on_the_seed_and_its_index_alone() {
        for workload in [Workload::Documents { length: 9 }, PAIRS, Workload::Splits { length: 16 }, MIXED] {
            let ask = |seed, index| workload.ask(seed, index, 50);
            assert_eq!(ask(1, 7), ask(1, 7));
            assert_ne!(ask(1, 7), ask(1, 8));
            assert_ne!(ask(1, 7), ask(2, 7));
            for (context, target) in ask(1, 7).texts() {
                assert_eq!(context[0], START);
                assert!(context[1..].iter().chain(target).all(|id| (SPECIAL..50).contains(id)));
                assert!(context.len() + target.len() <= workload.longest());
            }
        }
    }

    #[test]
    fn shapes_are_as_said() {
        let document = Workload::Documents { length: 9 }.ask(1, 0, 50);
        assert_eq!((document.scored_tokens(), document.pairs.len()), (8, 1));
        let pairs = PAIRS.ask(1, 0, 50);
        assert_eq!((pairs.scored_tokens(), pairs.pairs.len()), (24, 6));
        assert_ne!(pairs.contexts[0], pairs.contexts[1]);
        let contexts: std::collections::BTreeSet<_> = (0..50).flat_map(|i| PAIRS.ask(1, i, 50).contexts).collect();
        assert_eq!(contexts.len(), 4, "every request's contexts are of the pool");
        let splits = Workload::Splits { length: 16 }.ask(1, 0, 50);
        assert_eq!(splits.scored_tokens(), 3 * (2 + 4 + 8));
        let short = (0..1000).filter(|&i| MIXED.ask(1, i, 50).class == Class::Interactive).count();
        assert!((200..300).contains(&short), "{short}");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let told =
            |workload: Workload, vocabulary, longest| workload.check(vocabulary, longest).unwrap_err().to_string();
        assert_eq!(told(Workload::Documents { length: 1 }, 50, None), "length is 1; it must be at least 2");
        assert!(told(Workload::Splits { length: 12 }, 50, None).contains("power of two"));
        assert!(told(Workload::Documents { length: 9 }, 3, None).contains("vocabulary is 3"));
        assert!(told(PAIRS, 50, Some(8)).contains("is 9; it must be at most 8"));
        let few = Workload::Pairs { contexts: 2, context_length: 5, targets: 3, target_length: 4, prefixes: 1 };
        assert!(told(few, 50, None).contains("prefixes"));
        assert!(PAIRS.check(50, Some(9)).is_ok());
    }

    #[test]
    fn a_trace_is_read_and_its_errors_have_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trace.jsonl");
        let good = r#"{"contexts": [[0, 7], [0]], "targets": [[9], [4]], "pairs": [[1, 0]], "class": "interactive"}"#;
        std::fs::write(&path, format!("{good}\n\n{{\"contexts\": [[0]], \"targets\": [[5, 6]]}}\n")).unwrap();
        let trace = Workload::trace(&path).unwrap();
        let first = trace.ask(1, 0, 50);
        assert_eq!((first.texts().collect::<Vec<_>>(), first.class), (vec![(&[0][..], &[9][..])], Class::Interactive));
        assert_eq!(trace.ask(1, 2, 50), first, "it begins anew");
        assert_eq!(trace.ask(1, 3 * STREAM, 50), first, "every stream has it from its beginning");
        assert_eq!(trace.ask(1, 1, 50).scored_tokens(), 2);
        assert!(trace.check(9, None).unwrap_err().to_string().contains("token id is 9"));
        assert!(trace.check(10, None).is_ok());
        for (bad, reason) in [
            (r#"{"contexts": [[0]], "targets": [[]]}"#, "empty"),
            (r#"{"contexts": [[0]], "targets": [[1]], "pairs": [[0, 1]]}"#, "[0, 1]"),
            (r#"{"contexts": [[0]], "target": [[1]]}"#, "unknown field"),
        ] {
            std::fs::write(&path, format!("{good}\n{bad}")).unwrap();
            let told = Workload::trace(&path).unwrap_err().to_string();
            assert!(told.contains("line 2") && told.contains(reason), "{told}");
        }
    }
}
