//! Drain: the server accepts requests until it shuts down, and then finishes those in flight.

use tokio::sync::watch;

/// The number of requests in flight, and whether the server is draining. Clones share both.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drain(watch::Sender<State>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    draining: bool,
    active: usize,
}

/// A request that is in flight until this is dropped.
#[derive(Debug)]
pub(crate) struct ActiveRequest(Drain);

impl Drain {
    /// Counts a new request; `None` once draining has begun.
    pub(crate) fn enter(&self) -> Option<ActiveRequest> {
        let mut entered = false;
        self.0.send_if_modified(|state| {
            entered = !state.draining;
            state.active += usize::from(entered);
            // No task waits for the count to grow.
            false
        });
        entered.then(|| ActiveRequest(self.clone()))
    }

    /// Begins draining: no new request enters.
    pub(crate) fn begin(&self) {
        self.0.send_modify(|state| state.draining = true);
    }

    /// Returns true once draining has begun.
    pub(crate) fn is_draining(&self) -> bool {
        self.0.borrow().draining
    }

    /// Waits until draining has begun and no request is in flight.
    pub(crate) async fn finished(&self) {
        // It can fail only when the sender is gone, and `self` holds it.
        let _ = self.0.subscribe().wait_for(|state| state.draining && state.active == 0).await;
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.0.send_if_modified(|state| {
            state.active -= 1;
            // Before draining has begun, no task needs to be woken.
            state.draining
        });
    }
}
