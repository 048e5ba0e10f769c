//! Several servers of one model as one source: requests of one prefix go to one server, and to another should it fail.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use surprisal_api::TokenizerInfo;

use crate::error::Error;
use crate::source::dialect::Api;
use crate::source::http::{HttpOptions, HttpSource};
use crate::source::retry::{Failure, Retry};
use crate::source::{LogprobSource, Model, ScoreQuery, Tokenize, group};

/// Tokens of a sequence's beginning that say which server it belongs to: a block of a server's cache.
const KEY_TOKENS: usize = 32;

/// Which server is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Routing {
    /// One that depends on how the sequence begins, so that each server's cache holds its own share of the prefixes:
    /// rendezvous hashing (Thaler and Ravishankar, 1998), which moves no other prefixes when a server goes.
    #[default]
    Affinity,
    /// All in turns.
    RoundRobin,
}

/// Servers of one model.
#[derive(Debug)]
pub struct Replicas {
    replicas: Vec<Replica>,
    routing: Routing,
    turn: AtomicUsize,
    options: HttpOptions,
}

/// A server, and whether it is thought to answer.
#[derive(Debug)]
struct Replica {
    source: HttpSource,
    rest: Mutex<Rest>,
}

/// A server that failed is not asked for a while.
#[derive(Debug, Default)]
struct Rest {
    failures: u32,
    until: Option<Instant>,
    /// How long the rest was when it was last said.
    length: Duration,
    /// Whether one request went to see whether it answers.
    is_tried: bool,
}

impl Rest {
    /// It failed. Requests that were in flight together fail together: that is one failure.
    fn begin(&mut self, retry: &Retry, asked: Option<Duration>) {
        let now = Instant::now();
        if self.is_tried || self.until.is_none_or(|until| until <= now) {
            self.failures = self.failures.saturating_add(1);
        }
        self.is_tried = false;
        let until = self.until.map_or(now, |until| until.max(now)).max(now + retry.wait(self.failures, asked));
        (self.until, self.length) = (Some(until), until - now);
    }

    /// Whether a request may be sent now. Where there are other servers, one goes to see whether this one answers again,
    /// and as long as it rested before, the rest of them do not follow.
    fn ends(&mut self, has_others: bool) -> bool {
        let now = Instant::now();
        match self.until {
            Some(until) if until > now => return false,
            Some(_) if has_others => (self.until, self.is_tried) = (Some(now + self.length), true),
            _ => {}
        }
        true
    }
}

impl Replicas {
    /// Connects to the servers at `urls`. Those that do not answer are left out, as long as one does.
    ///
    /// # Errors
    /// As [`HttpSource::connect`]; [`Error::Replicas`] for two that serve different models.
    pub async fn connect(urls: &[String], routing: Routing, options: HttpOptions) -> Result<Self, Error> {
        let (mut replicas, mut failed) = (Vec::<Replica>::new(), None);
        let connections = join_all(urls.iter().map(|url| HttpSource::connect(url, options.clone()))).await;
        for (url, connected) in urls.iter().zip(connections) {
            match connected {
                Ok(source) => replicas.push(Replica { source, rest: Mutex::default() }),
                Err(error) if urls.len() == 1 => return Err(error),
                Err(error) => {
                    tracing::warn!(url, %error, "left out");
                    failed = Some(error);
                }
            }
        }
        let Some(first) = replicas.first().map(|replica| &replica.source) else {
            return Err(failed.unwrap_or_else(|| Error::invalid("model.urls", "empty", "at least one server")));
        };
        if let Some(other) = replicas.iter().find(|other| other.source.model() != first.model()) {
            let said = |source: &HttpSource| format!("{} serves {}", source.url(), source.model().fingerprint);
            return Err(Error::Replicas { one: said(first), other: said(&other.source) });
        }
        Ok(Self { replicas, routing, turn: AtomicUsize::new(0), options })
    }

    /// Checks that every sequence begins with a token, as far as servers say: ours put the model's BOS there, if it has one.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a BOS that is missing, that is another than the servers' own, or that is no token of the model.
    pub(crate) async fn check_bos(&self) -> Result<(), Error> {
        if self.options.api != Api::Surprisal {
            return Ok(());
        }
        let order: Vec<usize> = (0..self.replicas.len()).collect();
        let info = self.first(&order, HttpSource::tokenizer_info_once).await?;
        check_bos(self.options.bos, &info)
    }

    /// The order in which servers are asked for a sequence.
    fn order(&self, query: &ScoreQuery) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.replicas.len()).collect();
        match self.routing {
            Routing::RoundRobin => order.rotate_left(self.turn.fetch_add(1, Ordering::Relaxed) % self.replicas.len()),
            Routing::Affinity => {
                let key: Vec<u32> = query.context.iter().chain(&query.target).take(KEY_TOKENS).copied().collect();
                order.sort_by_cached_key(|&index| weight(self.replicas[index].source.url(), &key));
            }
        }
        order
    }

    /// One request, of the first server in order that answers.
    async fn ask(&self, order: &[usize], queries: &[ScoreQuery]) -> Result<Vec<Vec<f32>>, Error> {
        self.first(order, |source| source.attempt(queries)).await
    }

    async fn first<'a, T, F>(
        &'a self,
        order: &[usize],
        attempt: impl Fn(&'a HttpSource) -> F + Send + Sync,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Failure>> + Send,
    {
        let (retry, has_others) = (&self.options.retry, self.replicas.len() > 1);
        let mut trying = retry.trying();
        loop {
            let (replica, wait) = self.awake(order);
            tokio::time::sleep(wait).await;
            let _slot = replica.source.slot().await;
            // It may have failed those that were sent meanwhile.
            if !replica.rest().ends(has_others) {
                continue;
            }
            let sent = Instant::now();
            let failure = match attempt(&replica.source).await {
                Ok(answer) => {
                    replica.woke();
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            // A server that hangs is left for others; a single one would hang again.
            let hangs = !failure.passing && failure.is_transport();
            if !(failure.passing || hangs && has_others) {
                return Err(failure.error);
            }
            // What did not answer for so long is not asked for as long.
            replica.rest().begin(retry, failure.wait.or(hangs.then(|| sent.elapsed())));
            let (next, rest) = self.awake(order);
            let how = if std::ptr::eq(next, replica) { "trying again" } else { "trying another server" };
            trying.again(how, failure.error, rest)?;
        }
    }

    /// The first server in order that does not rest, or else the one that wakes first, and in how long.
    fn awake(&self, order: &[usize]) -> (&Replica, Duration) {
        let now = Instant::now();
        let wait = |index: usize| {
            let until = self.replicas[index].rest().until;
            until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
        };
        let waits: Vec<Duration> = order.iter().map(|&index| wait(index)).collect();
        let soonest = waits.iter().min().copied().unwrap_or_default();
        let at = waits.iter().position(|&wait| wait == soonest).unwrap_or(0);
        (&self.replicas[order[at]], soonest)
    }
}

impl Replica {
    fn rest(&self) -> std::sync::MutexGuard<'_, Rest> {
        self.rest.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn woke(&self) {
        *self.rest() = Rest::default();
    }
}

fn check_bos(given: Option<u32>, info: &TokenizerInfo) -> Result<(), Error> {
    let own = info.bos_token_id.filter(|_| info.add_bos_token);
    match (given, own) {
        (None, None) => Err(Error::invalid(
            "model.bos",
            "missing",
            "given (--bos, or in the experiment file), because the served model puts no token before a text: the id of the one that \
             documents begin with in training, for instance <|endoftext|>",
        )),
        (Some(bos), Some(own)) if bos != own => {
            Err(Error::invalid("model.bos", bos, format!("{own}, which the server puts before every text, or absent")))
        }
        (Some(bos), None) if bos as usize >= info.vocab_size => {
            Err(Error::invalid("model.bos", bos, format!("less than {}, the number of token ids", info.vocab_size)))
        }
        _ => Ok(()),
    }
}

/// What a server draws for a key; the least is asked first.
fn weight(url: &str, key: &[u32]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(url.as_bytes());
    for token in key {
        hasher.update(&token.to_le_bytes());
    }
    *hasher.finalize().as_bytes()
}

impl LogprobSource for Replicas {
    fn model(&self) -> &Model {
        self.replicas[0].source.model()
    }

    fn concurrency(&self) -> usize {
        self.options.concurrency * self.replicas.len()
    }

    /// Splits `queries` into requests by server and within the [`HttpOptions`]; neighbours stay together.
    async fn logprobs(&self, queries: Vec<ScoreQuery>) -> Result<Vec<Vec<f32>>, Error> {
        let mut shares: Vec<Vec<usize>> = vec![Vec::new(); self.replicas.len()];
        // In turns, a call goes to one server whole.
        let in_turns = queries.first().filter(|_| self.routing == Routing::RoundRobin);
        let whole = in_turns.map(|first| self.order(first));
        let order = |query: &ScoreQuery| whole.clone().unwrap_or_else(|| self.order(query));
        for (at, query) in queries.iter().enumerate() {
            shares[order(query)[0]].push(at);
        }
        let mut requests = Vec::new();
        for share in shares {
            let lengths = share.iter().map(|&at| queries[at].sequence_length());
            let ranges = group(lengths, self.options.queries_per_request, self.options.tokens_per_request);
            requests.extend(ranges.into_iter().map(|range| share[range].to_vec()));
        }
        let queries = &queries;
        let answer = async |places: Vec<usize>| {
            let own: Vec<ScoreQuery> = places.iter().map(|&at| queries[at].clone()).collect();
            let logprobs = self.ask(&order(&own[0]), &own).await?;
            Ok::<_, Error>((places, logprobs))
        };
        let requests = stream::iter(requests).map(answer).buffer_unordered(self.concurrency());
        let answers: Vec<_> = requests.try_collect().await?;
        let mut all = vec![Vec::new(); queries.len()];
        for (places, logprobs) in answers {
            places.into_iter().zip(logprobs).for_each(|(at, logprobs)| all[at] = logprobs);
        }
        Ok(all)
    }
}

impl Tokenize for Replicas {
    async fn tokenize(&self, text: &str) -> Result<Vec<u32>, Error> {
        let order: Vec<usize> = (0..self.replicas.len()).collect();
        self.first(&order, |source| source.tokenize_once(text)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bos_is_given_where_the_server_adds_none() {
        let checked = |given, id, adds| {
            let info =
                TokenizerInfo { bos_token_id: id, add_bos_token: adds, vocab_size: 10, ..TokenizerInfo::default() };
            check_bos(given, &info).map_err(|error| error.to_string())
        };
        for (given, id, adds) in
            [(None, Some(1), true), (Some(1), Some(1), true), (Some(2), Some(1), false), (Some(2), None, false)]
        {
            assert_eq!(checked(given, id, adds), Ok(()));
        }
        for (given, id, adds, hint) in [
            (None, Some(1), false, "model.bos is missing; it must be given (--bos, or in the experiment file)"),
            (None, None, false, "<|endoftext|>"),
            (Some(2), Some(1), true, "model.bos is 2; it must be 1, which the server puts before every text"),
            (Some(10), None, false, "model.bos is 10; it must be less than 10"),
        ] {
            let error = checked(given, id, adds).unwrap_err();
            assert!(error.contains(hint), "{error}");
        }
    }

    #[test]
    fn one_outage_is_one_failure_however_many_requests_it_meets() {
        let (hour, mut rest) = (Duration::from_secs(3600), Rest::default());
        let retry = Retry { first: hour, longest: 8 * hour, ..Retry::default() };
        (0..8).for_each(|_| rest.begin(&retry, None));
        assert_eq!(rest.failures, 1);
        assert!(rest.until.is_some_and(|until| until <= Instant::now() + hour));
        rest.begin(&retry, Some(9 * hour));
        assert!(rest.until.is_some_and(|until| until > Instant::now() + 8 * hour), "what a server asks for is heeded");
        rest.until = Some(Instant::now());
        rest.begin(&retry, None);
        assert_eq!(rest.failures, 2, "it was asked again, and failed again");
    }

    #[test]
    fn one_request_tries_a_server_that_rested() {
        let (hour, mut rest) = (Duration::from_secs(3600), Rest::default());
        let retry = Retry { first: hour, longest: hour, ..Retry::default() };
        assert!(rest.ends(true) && rest.ends(true), "it never failed");
        rest.begin(&retry, None);
        assert!(!rest.ends(true) && !rest.ends(false));
        rest.until = Some(Instant::now());
        assert!(rest.ends(false) && rest.ends(false), "there is no other server");
        assert!(rest.ends(true) && !rest.ends(true));
        rest.begin(&retry, None);
        assert_eq!(rest.failures, 2);
    }
}
