//! The connection limit, shared fairly among networks.
//!
//! At the limit, the server closes connections without a request to admit a new one: those of the network that has the
//! most connections, beginning with the one that has waited longest. So sockets that stay silent cannot keep others
//! out, and clients that open many connections lose their own first. A new connection is rejected if it would displace
//! one of a network that has fewer.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

/// The fraction of the limit that is freed at once, so that a flood of connections does not cost a search each.
const FREED_FRACTION: usize = 64;

/// The time for which further connections of a network are rejected without a search, once there was none to close.
const SEARCH_INTERVAL: Duration = Duration::from_millis(100);

/// The maximum number of fruitless searches in that time, for all networks. Further connections are rejected without a
/// search.
const MAX_FRUITLESS: usize = 16;

/// The connections of a listener. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connections(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<u64, Entry>,
    next_id: u64,
    /// The networks for which no connection could be closed lately, and the time of each search.
    fruitless: HashMap<IpAddr, Instant>,
}

#[derive(Debug)]
struct Entry {
    network: IpAddr,
    activity: Arc<dyn Activity>,
    task: Option<AbortHandle>,
}

/// The activity of a connection.
pub(crate) trait Activity: std::fmt::Debug + Send + Sync {
    /// Returns the time since which the connection has no request; `None` if it has one.
    fn idle_since(&self) -> Option<Instant>;
}

/// A guard that counts a connection until it is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionSlot {
    connections: Connections,
    id: u64,
}

impl Connections {
    /// Returns the number of open connections.
    pub(crate) fn count(&self) -> usize {
        self.lock().entries.len()
    }

    /// Counts a new connection.
    pub(crate) fn open(&self, address: IpAddr, activity: Arc<dyn Activity>) -> ConnectionSlot {
        let mut table = self.lock();
        let id = table.next_id;
        table.next_id += 1;
        table.entries.insert(id, Entry { network: network(address), activity, task: None });
        ConnectionSlot { connections: self.clone(), id }
    }

    /// Sets the task to abort when the connection must close. The connection may have ended already.
    pub(crate) fn set_task(&self, id: u64, task: AbortHandle) {
        if let Some(entry) = self.lock().entries.get_mut(&id) {
            entry.task = Some(task);
        }
    }

    /// Returns the tasks of the connections to close in favor of a new one from `address`. There are none if every
    /// connection that may be closed belongs to a network with fewer connections.
    pub(crate) fn displaced_by(&self, address: IpAddr, limit: usize) -> Vec<AbortHandle> {
        let mut table = self.lock();
        let newcomer = network(address);
        table.fruitless.retain(|_, at| at.elapsed() < SEARCH_INTERVAL);
        if table.fruitless.len() >= MAX_FRUITLESS || table.fruitless.contains_key(&newcomer) {
            return Vec::new();
        }
        let displaced = table.displaced_by(newcomer, limit);
        if displaced.is_empty() {
            table.fruitless.insert(newcomer, Instant::now());
        }
        displaced
    }

    /// Locks the table. Every update leaves it consistent, so a panic while the lock is held does no harm.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Searches for the connections to close in favor of a new one from this network.
    fn displaced_by(&self, newcomer: IpAddr, limit: usize) -> Vec<AbortHandle> {
        let mut totals: HashMap<IpAddr, usize> = HashMap::new();
        for entry in self.entries.values() {
            *totals.entry(entry.network).or_default() += 1;
        }
        let least = totals.get(&newcomer).map_or(1, |total| total + 1);
        let mut idle: Vec<(Reverse<usize>, IpAddr, Instant, &AbortHandle)> = Vec::new();
        for entry in self.entries.values() {
            let total = totals[&entry.network];
            if (total >= least || entry.network == newcomer)
                && let (Some(since), Some(task)) = (entry.activity.idle_since(), &entry.task)
            {
                idle.push((Reverse(total), entry.network, since, task));
            }
        }
        idle.sort_unstable_by_key(|&(total, network, since, _)| (total, network, since));
        let first = idle.first().map(|&(_, network, ..)| network);
        let of_first = idle.iter().take_while(|&&(_, network, ..)| Some(network) == first);
        of_first.take((limit / FREED_FRACTION).max(1)).map(|&(.., task)| task.clone()).collect()
    }
}

impl ConnectionSlot {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.connections.lock().entries.remove(&self.id);
    }
}

/// Returns the network of an address: the address itself, or, for IPv6, its first 64 bits, because one host usually
/// controls a whole /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Activity for Option<Instant> {
        fn idle_since(&self) -> Option<Instant> {
            *self
        }
    }

    /// Opens a connection. Returns its slot and its task, which never ends by itself.
    fn open(connections: &Connections, address: &str, idle: Option<Instant>) -> (ConnectionSlot, AbortHandle) {
        let slot = connections.open(address.parse().unwrap(), Arc::new(idle));
        let task = tokio::spawn(std::future::pending::<()>()).abort_handle();
        connections.set_task(slot.id(), task.clone());
        (slot, task)
    }

    #[tokio::test]
    async fn the_largest_network_loses_its_longest_idle_connection_first() {
        let (connections, now) = (Connections::default(), Instant::now());
        let at = |seconds| Some(now + Duration::from_secs(seconds));
        let displaced = |address: &str| -> Vec<_> {
            let tasks = connections.displaced_by(address.parse().unwrap(), 6);
            tasks.iter().map(AbortHandle::id).collect()
        };
        let _victim = open(&connections, "10.0.0.1", at(0));
        let attacker = [3, 1, 2].map(|second| open(&connections, "10.0.0.2", at(second)));
        let busy = open(&connections, "10.0.0.2", None);
        // Both a third network and the largest one itself displace the connection that has been idle longest.
        for address in ["10.0.0.3", "10.0.0.2", "10.0.0.1"] {
            assert_eq!(displaced(address), [attacker[1].1.id()], "{address}");
        }
        drop(attacker);
        drop(busy);
        // A network does not displace connections of another that has fewer.
        let _requests = [open(&connections, "10.0.0.2", None), open(&connections, "10.0.0.2", None)];
        assert_eq!(displaced("10.0.0.2"), []);
        assert_eq!(displaced("10.0.0.3").len(), 1);
        assert_eq!(connections.count(), 3);
    }

    /// A flood of rejected connections does not cost a search each.
    #[tokio::test(start_paused = true)]
    async fn a_fruitless_search_is_not_repeated_at_once() {
        let connections = Connections::default();
        let address = "10.0.0.1".parse().unwrap();
        let _busy = open(&connections, "10.0.0.1", None);
        assert!(connections.displaced_by(address, 1).is_empty());
        // Networks that alternate do not get a search each.
        assert!(connections.displaced_by("10.0.0.3".parse().unwrap(), 1).is_empty());
        let _idle = open(&connections, "10.0.0.1", Some(Instant::now()));
        assert!(connections.displaced_by(address, 1).is_empty());
        assert_eq!(connections.displaced_by("10.0.0.2".parse().unwrap(), 1).len(), 1);
        tokio::time::advance(SEARCH_INTERVAL).await;
        assert_eq!(connections.displaced_by(address, 1).len(), 1);
    }

    /// Nor does a flood from many networks.
    #[tokio::test(start_paused = true)]
    async fn fruitless_searches_are_limited_for_all_networks() {
        let connections = Connections::default();
        let address = |host: usize| IpAddr::from([10, 0, 1, host.try_into().unwrap()]);
        for host in 0..MAX_FRUITLESS {
            assert!(connections.displaced_by(address(host), 1).is_empty());
        }
        let _idle = open(&connections, "10.0.0.1", Some(Instant::now()));
        assert!(connections.displaced_by(address(MAX_FRUITLESS), 1).is_empty());
        tokio::time::advance(SEARCH_INTERVAL).await;
        assert_eq!(connections.displaced_by(address(MAX_FRUITLESS), 1).len(), 1);
    }

    #[test]
    fn a_network_is_64_bits_of_ipv6() {
        let network = |address: &str| network(address.parse().unwrap());
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), network("2001:db8:1:2::9"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_eq!(network("::ffff:10.0.0.1"), network("10.0.0.1"));
        assert_ne!(network("10.0.0.1"), network("10.0.0.2"));
    }
}
