//! The clients that put a load on a server: closed loops, and open loops with their clock.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use super::recorder::Failure;
use super::run::{Run, ScheduledRequest};
use super::send::send_and_record;
use crate::load::Load;

/// Starts the clients, and the clock of an open loop.
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
            // The system's timer is finer than tokio's. The thread ends with the arrivals, or when nobody listens.
            std::thread::spawn(move || dispatch_arrivals(&clock, load, &sender));
            let receiver = Arc::new(Mutex::new(receiver));
            for _ in 0..run.options.connections {
                clients.spawn(open_loop(Arc::clone(run), Arc::clone(&receiver)));
            }
        }
    }
    clients
}

/// Hands out each request of an open loop when it is due.
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
        // Generating a request is no part of its latency; the time before it decided whether it belongs to the warm-up.
        let due = if scheduled.is_measured() { Instant::now() } else { scheduled.due };
        send_and_record(&run, ScheduledRequest { due, ..scheduled }, &request).await;
    }
}

/// Sends requests of an open loop, one after the other; there is one of these for each request that may be in flight at once.
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
