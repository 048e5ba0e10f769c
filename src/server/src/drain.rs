//! Drain: new work is taken until shutdown is asked; then what is in flight finishes.

use tokio::sync::watch;

/// Counts the requests that are being worked on. Clones share the count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drain(watch::Sender<State>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    draining: bool,
    working: usize,
}

/// One request that is being worked on, until dropped.
#[derive(Debug)]
pub(crate) struct Working(Drain);

impl Drain {
    /// Takes new work, unless draining has begun.
    pub(crate) fn enter(&self) -> Option<Working> {
        let mut entered = false;
        self.0.send_if_modified(|state| {
            entered = !state.draining;
            state.working += usize::from(entered);
            // Nobody waits for there to be more of it.
            false
        });
        entered.then(|| Working(self.clone()))
    }

    /// No new work from here on.
    pub(crate) fn begin(&self) {
        self.0.send_modify(|state| state.draining = true);
    }

    /// True once draining has begun.
    pub(crate) fn is_draining(&self) -> bool {
        self.0.borrow().draining
    }

    /// Waits until draining has begun and nothing is being worked on.
    pub(crate) async fn finished(&self) {
        // It can fail only when the sender is gone, and `self` holds it.
        let _ = self.0.subscribe().wait_for(|state| state.draining && state.working == 0).await;
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.0.send_if_modified(|state| {
            state.working -= 1;
            // Before draining has begun nobody needs to be woken up for it.
            state.draining
        });
    }
}
