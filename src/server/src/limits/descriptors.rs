//! The number of connections that `ulimit -n` permits.

/// The number of descriptors that connections leave free, for files such as keys and certificates that are being
/// reloaded.
const RESERVED: usize = 16;

/// The number of open descriptors to assume if they cannot be counted.
#[cfg(unix)]
const ASSUMED_OPEN: usize = 32;

/// Returns the maximum number of connections: `configured`, or fewer if the process may not open as many descriptors
/// (`ulimit -n`). `others` is the number of descriptors that other listeners and the model need in addition to the open
/// ones.
pub(crate) fn connection_limit(configured: u32, others: usize) -> usize {
    let configured = usize::try_from(configured).unwrap_or(usize::MAX);
    let Some(free) = free_descriptors() else { return configured };
    let available = free.saturating_sub(RESERVED + others).max(1);
    if available < configured {
        tracing::warn!(
            max_connections = configured,
            effective = available,
            "max_connections exceeds the open-file limit; raise that limit with `ulimit -n`"
        );
    }
    configured.min(available)
}

/// Returns the number of descriptors that the process may still open; `None` if there is no limit.
#[cfg(unix)]
fn free_descriptors() -> Option<usize> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current?;
    let open = std::fs::read_dir("/dev/fd").map_or(ASSUMED_OPEN, Iterator::count);
    Some(usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(open))
}

#[cfg(not(unix))]
fn free_descriptors() -> Option<usize> {
    None
}
