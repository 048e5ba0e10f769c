//! Putting a load on a server.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::answer::{self, Answer};
use crate::connection::{Connection, Reply, Trouble};
use crate::record::{Failure, Record};
use crate::target::expect_success;
use crate::workload::STREAM;
use crate::{Ask, Counters, Error, Latency, Load, Outcome, Repeats, Target, Workload};

/// Requests of the warm-up have indices from here on, so that what is measured is the same however long it is.
const WARM_UP: u64 = 1 << 62;

/// How often progress is told.
const TICK: Duration = Duration::from_millis(250);

/// How long to wait where a server refuses without saying how long, or takes no connection.
const PAUSE: Duration = Duration::from_millis(100);

/// How a load is measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Decides every request and every time of sending. A server that was asked with it before may have answers in its cache.
    pub seed: u64,
    /// Which of the seed's streams is asked, below a million: each has requests of its own, of one pool of contexts.
    pub stream: u64,
    /// Load before the measurement.
    pub warm_up: Duration,
    /// The measurement.
    pub duration: Duration,
    /// Ends the measurement after so many requests instead, however long they take.
    pub requests: Option<u64>,
    /// Requests of an open loop that may be in flight at once; what is due beyond waits, and its latency counts.
    pub connections: usize,
    /// A request without an answer for so long has failed.
    pub timeout: Duration,
    /// So many requests are asked again at the end, to see whether their answers have the same bits.
    pub repeats: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 1,
            stream: 0,
            warm_up: Duration::from_secs(2),
            duration: Duration::from_secs(10),
            requests: None,
            connections: 256,
            timeout: Duration::from_secs(120),
            repeats: 8,
        }
    }
}

/// How far a measurement is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Since it began, warm-up included.
    pub elapsed: Duration,
    /// Whether the warm-up is still on.
    pub warming_up: bool,
    /// Requests answered in the measurement.
    pub requests: u64,
    /// Their log-probabilities.
    pub scored_tokens: u64,
    /// Requests answered a second.
    pub requests_per_second: f64,
    /// Log-probabilities answered a second.
    pub scored_tokens_per_second: f64,
    /// Latencies so far, of the class that has the most.
    pub latency: Option<Latency>,
    /// Which part of the tokens came from a cache, where answers say so.
    pub hit_rate: Option<f64>,
    /// Answers with status 429.
    pub refused: u64,
    /// Requests without a good answer.
    pub failed: u64,
}

/// A request and when it is due.
#[derive(Clone, Copy, Debug)]
struct Turn {
    index: u64,
    due: Instant,
}

/// Puts `load` on `target` and says what it came to. `progress` is called a few times a second.
///
/// The first request is sent alone; a server that does not answer it properly is not measured.
///
/// # Errors
/// [`Error::Invalid`] for options that make no sense; otherwise whatever kept the first request from being answered.
pub async fn measure(
    target: &Target,
    workload: &Workload,
    load: Load,
    options: &Options,
    progress: &(dyn Fn(&Progress) + Sync),
) -> Result<Outcome, Error> {
    load.check()?;
    workload.check(target.vocabulary, target.longest)?;
    if options.connections == 0 {
        return Err(Error::invalid("connections", 0, "at least 1"));
    }
    if options.requests.is_none() && options.duration.is_zero() {
        return Err(Error::invalid("duration", 0, "more than 0 seconds"));
    }
    if options.stream >= 1_000_000 {
        return Err(Error::invalid("stream", options.stream, "below a million"));
    }
    first(target, workload, options).await?;
    // Without a warm-up, the first request of the measurement must not be counted before it.
    let early = match options.warm_up.is_zero() {
        true => Counters::scrape(&mut target.connect(options.timeout)).await,
        false => None,
    };
    let run = Arc::new(Run::new(target.clone(), workload.clone(), options.clone()));
    let mut clients = spawn(&run, load);
    let late = watch(&run, &mut clients, progress).await;
    let before = early.or(late);
    let mut connection = target.connect(options.timeout);
    let after = Counters::scrape(&mut connection).await;
    let measured = match options.requests {
        Some(_) => run.record().last,
        None => options.duration,
    };
    let mut outcome = Outcome::new(load, measured, &run.record());
    outcome.counters = after.zip(before).map(|(after, before)| after.since(&before));
    let samples = run.record().take_samples();
    if !samples.is_empty() {
        outcome.repeats = Some(repeat(&run, &mut connection, samples).await?);
    }
    Ok(outcome)
}

/// Asks one request of the warm-up, to find out whether the server answers as it should.
async fn first(target: &Target, workload: &Workload, options: &Options) -> Result<(), Error> {
    let ask = workload.ask(options.seed, (options.stream + 1) * STREAM - 1, target.vocabulary);
    ask_alone(target, &mut target.connect(options.timeout), &ask).await.map(drop)
}

/// One request whose answer must be good. A server that is full is waited for.
async fn ask_alone(target: &Target, connection: &mut Connection, ask: &Ask) -> Result<Answer, Error> {
    let api = target.endpoint.api();
    let url = target.endpoint.url(api.path());
    let unclear = |reason: String| Error::Answer { url: url.clone(), reason };
    let body = api.body(ask, &target.model).map_err(|error| unclear(error.to_string()))?;
    for _ in 0..10 {
        match connection.post(api.path(), body.clone()).await {
            Ok(Reply { status: 429, retry_after, .. }) => tokio::time::sleep(retry_after.unwrap_or(PAUSE)).await,
            reply => return answer::read(api, ask, &expect_success(&url, reply)?.body).map_err(unclear),
        }
    }
    expect_success(&url, connection.post(api.path(), body).await)
        .and_then(|reply| answer::read(api, ask, &reply.body).map_err(unclear))
}

/// Asks again for some of the answers, one at a time.
async fn repeat(run: &Run, connection: &mut Connection, samples: BTreeMap<u64, Vec<f64>>) -> Result<Repeats, Error> {
    let mut repeats = Repeats::default();
    for (index, before) in samples {
        let ask = run.workload.ask(run.options.seed, index, run.target.vocabulary);
        let again = ask_alone(&run.target, connection, &ask).await?.logprobs.unwrap_or_default();
        let differences = before.iter().zip(&again).map(|(a, b)| (a - b).abs());
        let same = before.len() == again.len() && before.iter().zip(&again).all(|(a, b)| a.to_bits() == b.to_bits());
        repeats.asked += 1;
        repeats.same += u64::from(same);
        repeats.largest_difference = differences.fold(repeats.largest_difference, f64::max);
    }
    Ok(repeats)
}

/// Tells progress until every client is done; the server's counters at the end of the warm-up.
async fn watch(run: &Run, clients: &mut JoinSet<()>, progress: &(dyn Fn(&Progress) + Sync)) -> Option<Counters> {
    let mut connection = run.target.connect(run.options.timeout);
    let scrape = async {
        tokio::time::sleep_until(run.warm.into()).await;
        Counters::scrape(&mut connection).await
    };
    let mut ticks = tokio::time::interval(TICK);
    let work = async {
        loop {
            tokio::select! {
                done = clients.join_next() => if done.is_none() { return },
                _ = ticks.tick() => progress(&run.progress()),
            }
        }
    };
    let (before, ()) = tokio::join!(scrape, work);
    before
}

/// What all clients share.
struct Run {
    target: Target,
    workload: Workload,
    options: Options,
    start: Instant,
    warm: Instant,
    /// Nothing is sent from here on; `None` where the number of requests decides.
    end: Option<Instant>,
    record: Mutex<Record>,
    /// Connections that are free, the one that was used last at the end.
    idle: Mutex<Vec<Connection>>,
    /// The next request's index, in the warm-up and in the measurement.
    next: [AtomicU64; 2],
}

impl Run {
    fn new(target: Target, workload: Workload, options: Options) -> Self {
        let start = Instant::now();
        let warm = start + options.warm_up;
        let end = options.requests.is_none().then(|| warm + options.duration);
        let record = Mutex::new(Record::new(options.repeats));
        let first = options.stream * STREAM;
        let next = [AtomicU64::new(WARM_UP + first), AtomicU64::new(first)];
        Self { target, workload, options, start, warm, end, record, idle: Mutex::default(), next }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        // A connection is in it or not, whatever panicked.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        // Notes are complete between calls, even if a client panicked.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Over the connection that was free last, as a client with a pool does; a request that waits to be sent again holds none.
    async fn post(&self, path: &str, body: Bytes) -> Result<Reply, Trouble> {
        let idle = self.idle().pop();
        let mut connection = idle.unwrap_or_else(|| self.target.connect(self.options.timeout));
        let reply = connection.post(path, body).await;
        self.idle().push(connection);
        reply
    }

    /// The request that is due at a time; `None` when there are no more.
    fn turn(&self, due: Instant) -> Option<Turn> {
        let measured = due >= self.warm;
        let index = self.next[usize::from(measured)].fetch_add(1, Ordering::Relaxed);
        let limit = self.options.requests.filter(|_| measured).map(|count| self.options.stream * STREAM + count);
        let over = self.end.is_some_and(|end| due >= end) || limit.is_some_and(|limit| index >= limit);
        (!over).then_some(Turn { index, due })
    }

    fn progress(&self) -> Progress {
        let now = Instant::now();
        let record = self.record();
        let measured = now.saturating_duration_since(self.warm);
        let seconds = self.end.map_or(measured, |_| measured.min(self.options.duration)).as_secs_f64();
        let rate = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        Progress {
            elapsed: now.saturating_duration_since(self.start),
            warming_up: now < self.warm,
            requests: record.requests,
            scored_tokens: record.scored_tokens,
            requests_per_second: rate(record.requests),
            scored_tokens_per_second: rate(record.scored_tokens),
            latency: record.latencies().into_values().max_by_key(|latency| latency.count),
            hit_rate: record.hit_rate(),
            refused: record.refused,
            failed: record.failures.values().map(|failures| failures.count).sum(),
        }
    }
}

/// Starts the clients, and the clock of an open loop.
fn spawn(run: &Arc<Run>, load: Load) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    match load {
        Load::Closed { clients: count } => {
            for _ in 0..count {
                clients.spawn(closed(Arc::clone(run)));
            }
        }
        Load::Constant { .. } | Load::Poisson { .. } => {
            let (sender, receiver) = unbounded_channel();
            let clock = Arc::clone(run);
            // The system's timer is finer than tokio's. The thread ends with the arrivals, or when nobody listens.
            std::thread::spawn(move || tick(&clock, load, &sender));
            let receiver = Arc::new(tokio::sync::Mutex::new(receiver));
            for _ in 0..run.options.connections {
                clients.spawn(open(Arc::clone(run), Arc::clone(&receiver)));
            }
        }
    }
    clients
}

/// Sends each turn when it is due.
fn tick(run: &Run, load: Load, sender: &UnboundedSender<Turn>) {
    for at in load.arrivals(run.options.seed.wrapping_add(run.options.stream)) {
        let Some(turn) = run.start.checked_add(at).and_then(|due| run.turn(due)) else { return };
        std::thread::sleep(turn.due.saturating_duration_since(Instant::now()));
        if sender.send(turn).is_err() {
            return;
        }
    }
}

/// One client of a closed loop.
async fn closed(run: Arc<Run>) {
    while let Some(turn) = run.turn(Instant::now()) {
        let ask = run.workload.ask(run.options.seed, turn.index, run.target.vocabulary);
        // Making a request is no part of its latency; whether it is of the warm-up was decided before.
        let due = if turn.index < WARM_UP { Instant::now() } else { turn.due };
        serve(&run, Turn { due, ..turn }, &ask).await;
    }
}

/// One of the requests of an open loop that may be in flight at once.
async fn open(run: Arc<Run>, turns: Arc<tokio::sync::Mutex<UnboundedReceiver<Turn>>>) {
    loop {
        let Some(turn) = turns.lock().await.recv().await else { return };
        let ask = run.workload.ask(run.options.seed, turn.index, run.target.vocabulary);
        if run.end.is_some_and(|end| Instant::now() >= end) {
            if turn.index < WARM_UP {
                let failure = Failure::given_up("never sent", "still queued when the measurement ended");
                run.record().failed(ask.class, failure, turn.due.elapsed());
            }
        } else {
            serve(&run, turn, &ask).await;
        }
    }
}

/// Sends a request until it is answered or has failed, and takes notes, unless it is of the warm-up.
async fn serve(run: &Run, turn: Turn, ask: &Ask) {
    let measured = turn.index < WARM_UP;
    let asked = attempt(run, turn, ask).await;
    let now = Instant::now();
    let mut record = run.record();
    match asked {
        Ok(answer) => {
            // Work that began in the warm-up and ended in the measurement is throughput all the same.
            if now >= run.warm && run.end.is_none_or(|end| now < end) && (measured || run.end.is_some()) {
                record.finished(ask, &answer, now - run.warm);
            }
            if measured {
                record.latency(ask.class, now - turn.due);
                record.sample(turn.index, answer.logprobs);
            }
        }
        Err(failure) if measured => record.failed(ask.class, failure, (now - turn.due).max(run.options.timeout)),
        Err(_) => {}
    }
}

/// The answer, or why there is none. After a 429 the request waits as long as the server asks.
async fn attempt(run: &Run, turn: Turn, ask: &Ask) -> Result<Answer, Failure> {
    let api = run.target.endpoint.api();
    let body = api.body(ask, &run.target.model).map_err(|error| Failure::told("not sent", error.to_string()))?;
    loop {
        let reply = match run.post(api.path(), body.clone()).await {
            Ok(reply) => reply,
            Err(trouble @ Trouble::Connect(_)) => {
                tokio::time::sleep(PAUSE).await;
                return Err(Failure::told("no connection", trouble.to_string()));
            }
            Err(trouble @ Trouble::Broken(_)) => return Err(Failure::told("broken connection", trouble.to_string())),
            Err(trouble @ Trouble::Timeout(_)) => return Err(Failure::given_up("timeout", trouble.to_string())),
        };
        let text = || String::from_utf8_lossy(&reply.body).chars().take(200).collect::<String>();
        match reply.status {
            200 => return answer::read(api, ask, &reply.body).map_err(|reason| Failure::told("bad answer", reason)),
            429 => {
                if turn.index < WARM_UP {
                    run.record().refused += 1;
                }
                let wait = reply.retry_after.unwrap_or(PAUSE);
                if turn.due.elapsed() + wait > run.options.timeout {
                    return Err(Failure::given_up("status 429 to the end", text()));
                }
                tokio::time::sleep(wait).await;
            }
            status => return Err(Failure::told(format!("status {status}"), text())),
        }
    }
}
