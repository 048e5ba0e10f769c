//! The clients that send a load: in a closed loop each waits for its response, in an open loop a clock schedules
//! requests.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use super::recorder::Failure;
use super::run::{Run, ScheduledRequest};
use super::send::send_and_record;
use crate::load::Load;

/// Starts the clients, and for an open loop the clock.
pub(super) fn spawn(run: &Arc<Run>, load: Load) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    match load {
        Load::Closed { clients: count } => {
            for _ in 0..count {
                clients.spawn(closed_loop(Arc::clone(run)));
            }
        }
        Load::Constant { .. } | Load::Poisson { .. } => {
            let (sender, receiver) = unbounded_channel();
            let clock = Arc::clone(run);
            // Use a thread, because the system's timer is finer than tokio's. The thread ends after the last arrival,
            // or when all receivers are gone.
            std::thread::spawn(move || dispatch_arrivals(&clock, load, &sender));
            let receiver = Arc::new(Mutex::new(receiver));
            for _ in 0..run.options.connections {
                clients.spawn(open_loop(Arc::clone(run), Arc::clone(&receiver)));
            }
        }
    }
    clients
}

/// Hands each request of an open loop to a client when it is due.
fn dispatch_arrivals(run: &Run, load: Load, sender: &UnboundedSender<ScheduledRequest>) {
    for at in load.arrivals(run.options.seed.wrapping_add(run.options.stream)) {
        let Some(scheduled) = run.start.checked_add(at).and_then(|due| run.schedule(due)) else { return };
        std::thread::sleep(scheduled.due.saturating_duration_since(Instant::now()));
        if sender.send(scheduled).is_err() {
            return;
        }
    }
}

/// Runs one client of a closed loop.
async fn closed_loop(run: Arc<Run>) {
    while let Some(scheduled) = run.schedule(Instant::now()) {
        let request = run.request(scheduled.index);
        // The latency excludes the time to generate the request. The time before that decided whether the request
        // belongs to the warm-up.
        let due = if scheduled.is_measured() { Instant::now() } else { scheduled.due };
        send_and_record(&run, ScheduledRequest { due, ..scheduled }, &request).await;
    }
}

/// Runs one client of an open loop, which sends one request at a time. The number of clients limits the requests in
/// flight.
async fn open_loop(run: Arc<Run>, arrivals: Arc<Mutex<UnboundedReceiver<ScheduledRequest>>>) {
    loop {
        let Some(scheduled) = arrivals.lock().await.recv().await else { return };
        let request = run.request(scheduled.index);
        if !run.is_over(Instant::now()) {
            send_and_record(&run, scheduled, &request).await;
        } else if scheduled.is_measured() {
            let failure = Failure::gave_up("never sent", "still queued when the measurement ended");
            run.recorder().add_failure(request.class, failure, scheduled.due.elapsed());
        }
    }
}
