//! Several servers of one model as one source: requests with the same prefix go to the same server, or to another one
//! if that server fails.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use surprisal_api::TokenizerInfo;

use crate::error::Error;
use crate::source::cooldown::Cooldown;
use crate::source::dialect::ScoringDialect;
use crate::source::failure::Failure;
use crate::source::http::HttpSource;
use crate::source::options::HttpOptions;
use crate::source::{LogprobSource, Model, ScoreQuery, Tokenize, TokensAndOffsets, group_within_limits};

/// The number of leading tokens that determine the server for a sequence: one block of a server's cache.
const KEY_TOKENS: usize = 32;

/// The policy that chooses a server for each request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Routing {
    /// A server chosen by the beginning of the sequence, so that each server caches a different share of the prefixes.
    /// With rendezvous hashing (Thaler and Ravishankar, 1998), only the prefixes of a failed server move to other
    /// servers.
    #[default]
    Affinity,
    /// Each server in turn.
    RoundRobin,
}

/// Several servers of one model.
#[derive(Debug)]
pub struct Replicas {
    replicas: Vec<Replica>,
    routing: Routing,
    /// Calls so far, for [`Routing::RoundRobin`].
    calls: AtomicUsize,
    /// Set if a server rejected a request for the offsets of tokens, as older ones do.
    rejects_offsets: AtomicBool,
    options: HttpOptions,
}

/// One server and its cooldown.
#[derive(Debug)]
struct Replica {
    source: HttpSource,
    cooldown: Mutex<Cooldown>,
}

impl Replicas {
    /// Connects to the servers at `urls`. Servers that fail are omitted if at least one responds.
    ///
    /// # Errors
    /// The errors of [`HttpSource::connect`]; [`Error::ReplicasDiffer`] if two servers serve different models.
    pub async fn connect(urls: &[String], routing: Routing, options: HttpOptions) -> Result<Self, Error> {
        let (mut replicas, mut failed) = (Vec::<Replica>::new(), None);
        let connections = join_all(urls.iter().map(|url| HttpSource::connect(url, options.clone()))).await;
        for (url, connected) in urls.iter().zip(connections) {
            match connected {
                Ok(source) => replicas.push(Replica { source, cooldown: Mutex::default() }),
                Err(error) if urls.len() == 1 => return Err(error),
                Err(error) => {
                    tracing::warn!(url, %error, "connection failed; continuing without this server");
                    failed = Some(error);
                }
            }
        }
        let Some(first) = replicas.first().map(|replica| &replica.source) else {
            return Err(failed.unwrap_or_else(|| Error::invalid("model.urls", "empty", "at least one server")));
        };
        if let Some(other) = replicas.iter().find(|other| other.source.model() != first.model()) {
            let describe = |source: &HttpSource| format!("{} serves {}", source.url(), source.model().fingerprint);
            return Err(Error::ReplicasDiffer { one: describe(first), other: describe(&other.source) });
        }
        let identity = first.identity().clone();
        if !identity.is_known() {
            replicas.iter_mut().for_each(|replica| replica.source.share_identity(identity.clone()));
        }
        Ok(Self { replicas, routing, calls: AtomicUsize::new(0), rejects_offsets: AtomicBool::new(false), options })
    }

    /// Checks that every sequence starts with a BOS token: the experiment's BOS, or the BOS that a surprisal server
    /// adds. Other servers are not checked.
    ///
    /// # Errors
    /// [`Error::Invalid`] if BOS is missing, differs from the BOS that the servers add, or is not in the vocabulary.
    pub(crate) async fn check_bos(&self) -> Result<(), Error> {
        if self.options.api != ScoringDialect::Surprisal {
            return Ok(());
        }
        let info = self.first_success(&self.all(), HttpSource::tokenizer_info_once).await?;
        check_bos(self.options.bos, &info)
    }

    /// Returns the indices of all servers.
    fn all(&self) -> Vec<usize> {
        (0..self.replicas.len()).collect()
    }

    /// Returns the order in which servers are tried for a sequence.
    fn preference(&self, query: &ScoreQuery) -> Vec<usize> {
        let mut order = self.all();
        match self.routing {
            Routing::RoundRobin => order.rotate_left(self.calls.fetch_add(1, Ordering::Relaxed) % self.replicas.len()),
            Routing::Affinity => {
                let key: Vec<u32> = query.context.iter().chain(&query.target).take(KEY_TOKENS).copied().collect();
                order.sort_by_cached_key(|&index| rendezvous_weight(self.replicas[index].source.url(), &key));
            }
        }
        order
    }

    /// Groups queries by preferred server, and divides each group into requests within the limits. Returns the indices
    /// of each request's queries.
    fn requests(&self, queries: &[ScoreQuery], preference: impl Fn(&ScoreQuery) -> Vec<usize>) -> Vec<Vec<usize>> {
        let mut by_server: Vec<Vec<usize>> = vec![Vec::new(); self.replicas.len()];
        for (index, query) in queries.iter().enumerate() {
            by_server[preference(query)[0]].push(index);
        }
        let mut requests = Vec::new();
        for indices in by_server {
            let lengths = indices.iter().map(|&index| queries[index].sequence_length());
            let (max_queries, max_tokens) = (self.options.queries_per_request, self.options.tokens_per_request);
            for range in group_within_limits(lengths, max_queries, max_tokens) {
                requests.push(indices[range].to_vec());
            }
        }
        requests
    }

    /// Tries servers in this order, and again after their cooldowns, until one succeeds or the retries run out.
    async fn first_success<'a, T, F>(
        &'a self,
        order: &[usize],
        attempt: impl Fn(&'a HttpSource) -> F + Send + Sync,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Failure>> + Send,
    {
        let (retry, has_others) = (&self.options.retry, self.replicas.len() > 1);
        let mut attempts = retry.attempts();
        loop {
            let (replica, wait) = self.next_available(order);
            tokio::time::sleep(wait).await;
            let _slot = replica.source.slot().await;
            // Other requests to this server may have failed in the meantime.
            if !replica.cooldown().admit(has_others) {
                continue;
            }
            let sent = Instant::now();
            let failure = match attempt(&replica.source).await {
                Ok(answer) => {
                    replica.reset_cooldown();
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            // If a server hangs, another may take over; a single server would hang again.
            let hangs = !failure.is_transient && failure.is_transport();
            if !(failure.is_transient || hangs && has_others) {
                return Err(failure.error);
            }
            // A server that hung gets a cooldown as long as it hung.
            let requested = failure.retry_after.or(hangs.then(|| sent.elapsed()));
            replica.cooldown().record_failure(retry, requested);
            let (next, wait) = self.next_available(order);
            let action = if std::ptr::eq(next, replica) {
                "request failed; retrying"
            } else {
                "request failed; trying another server"
            };
            attempts.record_failure(action, failure.error, wait)?;
        }
    }

    /// Returns the first server in `order` without a cooldown, or else the server whose cooldown ends first. Also
    /// returns the time until its cooldown ends, or zero.
    fn next_available(&self, order: &[usize]) -> (&Replica, Duration) {
        let now = Instant::now();
        let mut next: Option<(&Replica, Duration)> = None;
        for &index in order {
            let replica = &self.replicas[index];
            let wait = replica.cooldown().remaining(now);
            if next.is_none_or(|(_, soonest)| wait < soonest) {
                next = Some((replica, wait));
            }
        }
        next.unwrap_or((&self.replicas[0], Duration::ZERO))
    }
}

impl Replica {
    fn cooldown(&self) -> MutexGuard<'_, Cooldown> {
        self.cooldown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reset_cooldown(&self) {
        *self.cooldown() = Cooldown::default();
    }
}

/// Checks the experiment's BOS against the server's tokenizer.
fn check_bos(given: Option<u32>, info: &TokenizerInfo) -> Result<(), Error> {
    let own = info.bos_token_id.filter(|_| info.add_bos_token);
    match (given, own) {
        (None, None) => Err(Error::invalid(
            "model.bos",
            "missing",
            "set (--bos, or bos in the experiment file), because the served model adds no BOS: use the id of the token \
             that starts documents in training, such as <|endoftext|>",
        )),
        (Some(bos), Some(own)) if bos != own => {
            Err(Error::invalid("model.bos", bos, format!("{own}, which the server puts before every text, or omitted")))
        }
        (Some(bos), None) if bos as usize >= info.vocab_size => {
            Err(Error::invalid("model.bos", bos, format!("less than {}, the size of the vocabulary", info.vocab_size)))
        }
        _ => Ok(()),
    }
}

/// Returns a server's hash for a key; the server with the smallest hash gets the sequence.
fn rendezvous_weight(url: &str, key: &[u32]) -> [u8; 32] {
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

    /// Splits `queries` into requests by server and within the limits of [`HttpOptions`]; neighbors stay together.
    async fn logprobs(&self, queries: Vec<ScoreQuery>) -> Result<Vec<Vec<f32>>, Error> {
        // With round robin, all queries of a call go to one server.
        let in_turns = queries.first().filter(|_| self.routing == Routing::RoundRobin);
        let shared = in_turns.map(|first| self.preference(first));
        let preference = |query: &ScoreQuery| shared.clone().unwrap_or_else(|| self.preference(query));
        let requests = self.requests(&queries, preference);
        let queries = &queries;
        let send = async |indices: Vec<usize>| {
            let batch: Vec<ScoreQuery> = indices.iter().map(|&index| queries[index].clone()).collect();
            let order = preference(&batch[0]);
            let logprobs = self.first_success(&order, |source| source.score_once(&batch)).await?;
            Ok::<_, Error>((indices, logprobs))
        };
        let responses = stream::iter(requests).map(send).buffer_unordered(self.concurrency());
        let responses: Vec<_> = responses.try_collect().await?;
        let mut all = vec![Vec::new(); queries.len()];
        for (indices, logprobs) in responses {
            for (index, logprobs) in indices.into_iter().zip(logprobs) {
                all[index] = logprobs;
            }
        }
        Ok(all)
    }
}

impl Tokenize for Replicas {
    async fn tokenize(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.first_success(&self.all(), |source| source.tokenize_once(text)).await
    }

    /// Only surprisal servers return offsets. A run does not depend on offsets, so a server that rejects the request is
    /// not an error.
    async fn tokenize_with_offsets(&self, text: &str) -> Result<Option<TokensAndOffsets>, Error> {
        if self.options.api != ScoringDialect::Surprisal || self.rejects_offsets.load(Ordering::Relaxed) {
            return Ok(None);
        }
        match self.first_success(&self.all(), |source| source.tokenize_with_offsets_once(text)).await {
            Err(Error::Rejected { problem, .. }) => {
                if !self.rejects_offsets.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%problem, "the server returns no offsets of tokens; saving none");
                }
                Ok(None)
            }
            found => found,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bos_is_required_if_the_server_adds_none() {
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
            (None, Some(1), false, "model.bos is missing; it must be set (--bos, or bos in the experiment file)"),
            (None, None, false, "<|endoftext|>"),
            (Some(2), Some(1), true, "model.bos is 2; it must be 1, which the server puts before every text"),
            (Some(10), None, false, "model.bos is 10; it must be less than 10"),
        ] {
            let error = checked(given, id, adds).unwrap_err();
            assert!(error.contains(hint), "{error}");
        }
    }
}
