//! Draining: once shutdown begins, the server accepts no new requests and finishes those in flight.

use tokio::sync::watch;

/// The number of requests in flight, and the draining flag. Clones share both.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drain(watch::Sender<State>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    draining: bool,
    active: usize,
}

/// A guard that counts a request as in flight until the guard is dropped.
#[derive(Debug)]
pub(crate) struct ActiveRequest(Drain);

impl Drain {
    /// Counts a new request as in flight. Returns `None` once draining has begun.
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

    /// Begins draining: from now on, no new request is accepted.
    pub(crate) fn begin(&self) {
        self.0.send_modify(|state| state.draining = true);
    }

    /// Returns `true` once draining has begun.
    pub(crate) fn is_draining(&self) -> bool {
        self.0.borrow().draining
    }

    /// Waits until draining has begun and no request is in flight.
    pub(crate) async fn finished(&self) {
        // This fails only if the sender is dropped, but `self` holds it.
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
