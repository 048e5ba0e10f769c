//! The global allocator: the system's, but it returns freed memory and retries failed allocations.
//!
//! glibc keeps freed memory in its arenas, where one block in use keeps all free memory below it. Here, large blocks get
//! mappings of their own, which return to the system when they are freed, and [`release_freed_memory`] returns the
//! other free pages.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::thread;
use std::time::Duration;

/// The wait after the first failure. Each further wait is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(10);
/// The number of waits.
const WAITS: u32 = 9;

#[global_allocator]
static ALLOCATOR: RetryingAllocator = RetryingAllocator;

/// The system's allocator. It repeats an allocation that fails for up to five seconds, because other requests free
/// memory soon.
struct RetryingAllocator;

// SAFETY: every call is passed on to the system's allocator, and one of its results is returned. A failed call leaves
// the arguments valid, so it may be repeated.
unsafe impl GlobalAlloc for RetryingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller upholds the contract of `alloc`, which is the same.
        retry(|| unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller upholds the contract of `alloc_zeroed`, which is the same.
        retry(|| unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller upholds the contract of `dealloc`, which is the same.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller upholds the contract of `realloc`, which is the same.
        retry(|| unsafe { System.realloc(pointer, layout, size) })
    }
}

/// Returns the first result that is not null, or null if the last attempt fails.
fn retry(allocate: impl Fn() -> *mut u8) -> *mut u8 {
    let pointer = allocate();
    if pointer.is_null() { retry_slowly(&allocate) } else { pointer }
}

/// Retries an allocation several times, each after trimming the heap or waiting.
#[cold]
fn retry_slowly(allocate: &dyn Fn() -> *mut u8) -> *mut u8 {
    let mut pointer = std::ptr::null_mut();
    for attempt in 0..WAITS {
        system::trim();
        pointer = allocate();
        if !pointer.is_null() {
            break;
        }
        thread::sleep(FIRST_WAIT * 2_u32.pow(attempt));
        pointer = allocate();
        if !pointer.is_null() {
            break;
        }
    }
    pointer
}

/// Makes the system's allocator map large blocks separately. Call it before the program starts threads.
pub(crate) fn configure() {
    system::configure();
}

/// Starts a thread that returns free pages to the system from time to time, for as long as the program runs.
pub(crate) fn release_freed_memory() {
    let spawned = thread::Builder::new().name("trim".to_owned()).spawn(system::trim_forever);
    if let Err(error) = spawned {
        tracing::warn!(%error, "cannot start the thread that returns freed memory; the server may hold more than it uses");
    }
}

/// glibc on Linux.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod system {
    use std::thread;
    use std::time::{Duration, Instant};

    /// The minimum size of a block with a mapping of its own, and the maximum free memory at the end of an arena, in
    /// bytes. Unless it is set, glibc raises the first to the size of the largest freed block, up to 32 MiB.
    const THRESHOLD: libc::c_int = 1 << 20;
    /// The time between two looks at the resident memory, and between two releases that may find nothing.
    const PERIOD: Duration = Duration::from_secs(5);
    const MAX_INTERVAL: Duration = Duration::from_secs(30);
    /// The growth of the resident memory that is worth a release, in KiB.
    const GROWTH: usize = 16 << 10;

    pub(super) fn configure() {
        // SAFETY: `mallopt` has no preconditions. It returns 0 if it rejects a value; then nothing changes.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, THRESHOLD);
            libc::mallopt(libc::M_TRIM_THRESHOLD, THRESHOLD);
        }
    }

    pub(super) fn trim() {
        // SAFETY: `malloc_trim` has no preconditions; it takes the locks of the arenas.
        unsafe {
            libc::malloc_trim(0);
        }
    }

    /// Trims when the resident memory has grown since the last time. While it is above the smallest value so far, trims
    /// now and then, too: memory that is freed into the arenas stays resident.
    pub(super) fn trim_forever() {
        let (mut smallest, mut after_trim, mut last_trim) = (usize::MAX, 0, Instant::now());
        loop {
            thread::sleep(PERIOD);
            let Some(resident) = resident_kib() else { continue };
            smallest = smallest.min(resident);
            let is_large = resident > smallest + GROWTH && last_trim.elapsed() >= MAX_INTERVAL;
            if is_large || resident > after_trim + GROWTH {
                trim();
                last_trim = Instant::now();
                after_trim = resident_kib().unwrap_or(resident);
            }
        }
    }

    /// Returns the resident memory of this process, in KiB, if the system reports it.
    fn resident_kib() -> Option<usize> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse().ok()
    }
}

/// Other systems return freed memory in their own way.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
mod system {
    pub(super) fn configure() {}

    pub(super) fn trim() {}

    pub(super) fn trim_forever() {}
}
