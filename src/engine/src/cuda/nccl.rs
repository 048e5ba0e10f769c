//! `NcclCommunicator`: a rank's connection to its group through NCCL, for ranks on the GPUs of one machine.
//!
//! NCCL is loaded at run time, but not by cudarc: cudarc looks only for libnccl.so, which is installed with the
//! headers, and most machines have only libnccl.so.2. No call to a communicator blocks, and whenever the host waits, it
//! also watches the other ranks. A rank that fails sets a flag that the threads of all ranks share. The thread of every
//! other rank then aborts its communicator, which ends its GPU's waits.

// The interface to C: NCCL's functions and handles.
#![allow(unsafe_code)]

use std::ffi::{CStr, OsString, c_char, c_int, c_void};
use std::path::PathBuf;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use cudarc::driver::sys::{CUevent, CUevent_flags, CUresult, CUstream};
use cudarc::driver::{CudaContext, DriverError, result};
use libloading::Library;

use super::memory::DeviceRegion;
use crate::backend::BackendError;
use crate::parallel::communicator::RankLost;

/// Values of `ncclResult_t` and `ncclDataType_t` in nccl.h.
const SUCCESS: c_int = 0;
const IN_PROGRESS: c_int = 7;
const BYTE: c_int = 1;

/// Time that a wait spins before it sleeps. Almost every exchange takes less time than a sleep.
const SPIN_TIME: Duration = Duration::from_micros(100);

/// Interval at which a sleeping wait polls the device and the other ranks.
const POLL_INTERVAL: Duration = Duration::from_micros(20);

/// Maximum number of exchanges that are queued at a time. A full driver queue would block the host, even if a rank is
/// lost.
const MAX_QUEUED_EXCHANGES: usize = 16;

/// Value of [`NcclCommunicator::lost`] while no rank is lost.
const NO_RANK: usize = usize::MAX;

type Comm = *mut c_void;

#[derive(Clone, Copy)]
#[repr(C)]
struct UniqueId([c_char; 128]);

/// `ncclConfig_t` of NCCL 2.14. Later versions of NCCL set the fields that this version lacks to their defaults.
#[repr(C)]
struct NcclConfig {
    size: usize,
    magic: u32,
    version: u32,
    blocking: c_int,
    /// A field of later versions; the smallest integer means undefined.
    undefined: c_int,
}

/// The functions of NCCL, as nccl.h declares them.
#[derive(Debug)]
struct Nccl {
    version: unsafe extern "C" fn(*mut c_int) -> c_int,
    unique_id: unsafe extern "C" fn(*mut UniqueId) -> c_int,
    init: unsafe extern "C" fn(*mut Comm, c_int, UniqueId, c_int, *mut NcclConfig) -> c_int,
    abort: unsafe extern "C" fn(Comm) -> c_int,
    async_error: unsafe extern "C" fn(Comm, *mut c_int) -> c_int,
    error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    group_start: unsafe extern "C" fn() -> c_int,
    group_end: unsafe extern "C" fn() -> c_int,
    send: unsafe extern "C" fn(*const c_void, usize, c_int, c_int, Comm, CUstream) -> c_int,
    receive: unsafe extern "C" fn(*mut c_void, usize, c_int, c_int, Comm, CUstream) -> c_int,
    all_gather: unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, Comm, CUstream) -> c_int,
    /// Keeps the functions loaded.
    _library: Library,
}

/// Lists the paths to try: first the names that the loader searches for, then the folders of toolkits and environments.
fn candidates(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let home = |name: &str, folder: &str| variable(name).map(|home| PathBuf::from(home).join(folder));
    let folders = [
        home("NCCL_HOME", "lib"),
        home("CUDA_HOME", "lib64"),
        home("CONDA_PREFIX", "lib"),
        Some(PathBuf::from("/usr/local/nccl/lib")),
        Some(PathBuf::from("/usr/local/cuda/lib64")),
    ];
    let named = ["libnccl.so.2", "libnccl.so"].map(PathBuf::from);
    named.into_iter().chain(folders.into_iter().flatten().map(|folder| folder.join("libnccl.so.2"))).collect()
}

impl Nccl {
    /// Returns NCCL, and opens the library first if necessary.
    fn find() -> Result<&'static Self, BackendError> {
        static FOUND: OnceLock<Result<Nccl, String>> = OnceLock::new();
        FOUND.get_or_init(Self::open).as_ref().map_err(|reason| BackendError(reason.clone()))
    }

    fn open() -> Result<Self, String> {
        let candidates = candidates(|name| std::env::var_os(name));
        // SAFETY: opening runs the library's initializers, and NCCL's are sound.
        let library = candidates.iter().find_map(|path| unsafe { Library::new(path) }.ok()).ok_or_else(|| {
            "NCCL, which connects GPUs, is missing: libnccl.so.2 is neither on the loader's path nor in NCCL_HOME/lib; \
             install libnccl2, or add the folder that contains it to LD_LIBRARY_PATH (for the wheel nvidia-nccl-cu13: \
             site-packages/nvidia/nccl/lib)"
                .to_owned()
        })?;
        // SAFETY: the types are those that nccl.h declares, and the library is never unloaded.
        unsafe { Self::of(library) }.map_err(|error| format!("NCCL must be version 2.14 or later: {error}"))
    }

    /// Looks up NCCL's functions in a library.
    ///
    /// # Safety
    ///
    /// `library` must be NCCL.
    unsafe fn of(library: Library) -> Result<Self, libloading::Error> {
        // SAFETY: the library is NCCL, and each name has the type of its field.
        unsafe {
            Ok(Self {
                version: *library.get(c"ncclGetVersion")?,
                unique_id: *library.get(c"ncclGetUniqueId")?,
                init: *library.get(c"ncclCommInitRankConfig")?,
                abort: *library.get(c"ncclCommAbort")?,
                async_error: *library.get(c"ncclCommGetAsyncError")?,
                error_string: *library.get(c"ncclGetErrorString")?,
                group_start: *library.get(c"ncclGroupStart")?,
                group_end: *library.get(c"ncclGroupEnd")?,
                send: *library.get(c"ncclSend")?,
                receive: *library.get(c"ncclRecv")?,
                all_gather: *library.get(c"ncclAllGather")?,
                _library: library,
            })
        }
    }

    /// Checks the status of a call. A non-blocking call may still be in progress.
    fn check(&self, what: &str, status: c_int) -> Result<(), BackendError> {
        if matches!(status, SUCCESS | IN_PROGRESS) {
            return Ok(());
        }
        // SAFETY: the function accepts any number and returns a static string.
        let reason = unsafe { CStr::from_ptr((self.error_string)(status)) };
        Err(BackendError(format!("NCCL failed {what}: {}", reason.to_string_lossy())))
    }
}

/// Returns NCCL's version, such as `22809`.
///
/// # Errors
///
/// Fails if NCCL is missing.
pub(super) fn version() -> Result<c_int, BackendError> {
    let (nccl, mut version) = (Nccl::find()?, 0);
    // SAFETY: the function writes one integer.
    nccl.check("to report its version", unsafe { (nccl.version)(&raw mut version) })?;
    Ok(version)
}

/// One GPU's connection to its group.
#[derive(Debug)]
pub(super) struct NcclCommunicator {
    nccl: &'static Nccl,
    comm: Comm,
    rank: usize,
    size: usize,
    /// The first rank of the group that was lost, or [`NO_RANK`].
    lost: Arc<AtomicUsize>,
    /// Events that are recorded after exchanges, and reused in turn.
    fences: Vec<CUevent>,
    next_fence: usize,
}

// SAFETY: communicators and events belong to the process, not to a thread; `&mut` excludes concurrent use.
unsafe impl Send for NcclCommunicator {}

impl NcclCommunicator {
    /// Connects all ranks of a group, one on each of the given GPUs.
    ///
    /// # Errors
    ///
    /// Fails if NCCL is missing or cannot connect the ranks.
    pub(super) fn group(contexts: &[Arc<CudaContext>]) -> Result<Vec<Self>, BackendError> {
        let (nccl, lost) = (Nccl::find()?, Arc::new(AtomicUsize::new(NO_RANK)));
        let size = contexts.len();
        let mut id = UniqueId([0; 128]);
        // SAFETY: the function writes one id.
        nccl.check("to create a group's id", unsafe { (nccl.unique_id)(&raw mut id) })?;
        let (size_of_config, magic, version) = (size_of::<NcclConfig>(), 0xcafe_beef, 21_400);
        let mut config = NcclConfig { size: size_of_config, magic, version, blocking: 0, undefined: c_int::MIN };
        // NCCL may write to these until all ranks are ready or aborted, so they are dropped last.
        let comms: Vec<AtomicPtr<c_void>> = (0..size).map(|_| AtomicPtr::default()).collect();
        // SAFETY: the pointers in `comms` are atomic and live as long as NCCL may write to them; the context of each
        // rank is bound before the rank is created.
        let made = unsafe {
            nccl.check("to begin a group", (nccl.group_start)())?;
            let made = contexts.iter().zip(&comms).enumerate().try_for_each(|(rank, (context, comm))| {
                context.bind_to_thread().map_err(failed("to bind its context"))?;
                nccl.check(
                    "to create a rank",
                    (nccl.init)(comm.as_ptr(), size as c_int, id, rank as c_int, &raw mut config),
                )
            });
            made.and(nccl.check("to create a group", (nccl.group_end)()))
        };
        // If not all ranks were created, dropping these aborts their communicators; NCCL accepts a null communicator.
        let rank = |(rank, comm): (usize, &AtomicPtr<c_void>)| {
            let (comm, lost) = (comm.load(Ordering::Acquire), Arc::clone(&lost));
            Self { nccl, comm, rank, size, lost, fences: Vec::new(), next_fence: 0 }
        };
        let mut ranks: Vec<Self> = comms.iter().enumerate().map(rank).collect();
        made?;
        for (communicator, context) in ranks.iter_mut().zip(contexts) {
            context.bind_to_thread().map_err(failed("to bind its context"))?;
            for _ in 0..MAX_QUEUED_EXCHANGES {
                let fence = result::event::create(CUevent_flags::CU_EVENT_DISABLE_TIMING);
                communicator.fences.push(fence.map_err(failed("to create an event"))?);
            }
        }
        ranks.iter().try_for_each(Self::wait_for_nccl)?;
        Ok(ranks)
    }

    pub(super) fn rank(&self) -> usize {
        self.rank
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Queues a [`DeviceCommunicator::exchange`](super::DeviceCommunicator::exchange) on the stream.
    pub(super) fn exchange(
        &mut self,
        from: DeviceRegion,
        to: DeviceRegion,
        stream: CUstream,
    ) -> Result<(), BackendError> {
        let nccl = self.nccl;
        self.queue(stream, |communicator| {
            // SAFETY: the slices belong to the GPU's memory, which outlives the stream's work.
            nccl.check("to begin an exchange", unsafe { (nccl.group_start)() })?;
            let queued = (0..communicator.size).try_for_each(|other| {
                let (from, to) = (from.slice(other, communicator.size)?, to.slice(other, communicator.size)?);
                let (bytes, peer) = (from.bytes(), other as c_int);
                let (from, to) = (pointer(from)?, pointer(to)?);
                // SAFETY: as above; both sides count the same bytes, because all ranks make the same calls.
                unsafe {
                    nccl.check("to send", (nccl.send)(from, bytes, BYTE, peer, communicator.comm, stream))?;
                    nccl.check("to receive", (nccl.receive)(to, bytes, BYTE, peer, communicator.comm, stream))
                }
            });
            // SAFETY: the call ends the group that was started, even if queueing failed.
            queued.and(nccl.check("to exchange", unsafe { (nccl.group_end)() }))
        })
    }

    /// Queues a [`DeviceCommunicator::gather`](super::DeviceCommunicator::gather) on the stream.
    pub(super) fn gather(&mut self, all: DeviceRegion, stream: CUstream) -> Result<(), BackendError> {
        let slice = all.slice(self.rank, self.size)?;
        let (bytes, slice, all) = (slice.bytes(), pointer(slice)?, pointer(all)?);
        let nccl = self.nccl;
        // SAFETY: the region belongs to the GPU's memory and holds a slice for each rank, this rank's at its position.
        self.queue(stream, |communicator| unsafe {
            nccl.check("to gather", (nccl.all_gather)(slice, all, bytes, BYTE, communicator.comm, stream))
        })
    }

    /// Queues an exchange, once fewer than [`MAX_QUEUED_EXCHANGES`] are queued.
    fn queue(
        &mut self,
        stream: CUstream,
        exchange: impl FnOnce(&Self) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        let fence = self.fences[self.next_fence];
        self.next_fence = (self.next_fence + 1) % MAX_QUEUED_EXCHANGES;
        self.wait(fence)?;
        exchange(self)?;
        self.wait_for_nccl()?;
        // SAFETY: both are live.
        unsafe { result::event::record(fence, stream) }.map_err(failed("to record an event"))
    }

    /// Waits for an event. Fails as soon as a rank is lost.
    pub(super) fn wait(&self, event: CUevent) -> Result<(), BackendError> {
        // SAFETY: the event is live.
        wait_until(|| match unsafe { result::event::query(event) } {
            Ok(()) => Ok(true),
            Err(DriverError(CUresult::CUDA_ERROR_NOT_READY)) => self.state().map(|_| false),
            Err(error) => Err(failed("to run the queued work")(error)),
        })
    }

    /// Waits until NCCL has queued the last call. Fails as soon as a rank is lost.
    fn wait_for_nccl(&self) -> Result<(), BackendError> {
        wait_until(|| Ok(self.state()? != IN_PROGRESS))
    }

    /// Returns the state of NCCL's last call. Fails if a rank is lost.
    fn state(&self) -> Result<c_int, BackendError> {
        match self.lost.load(Ordering::Acquire) {
            NO_RANK => {}
            rank => return Err(RankLost { rank, size: self.size }.into()),
        }
        let mut state = SUCCESS;
        // SAFETY: the communicator is live; the function writes one integer.
        let status = unsafe { (self.nccl.async_error)(self.comm, &raw mut state) };
        self.nccl.check("to report its state", status)?;
        self.nccl.check("to communicate between ranks", state)?;
        Ok(state)
    }
}

impl Drop for NcclCommunicator {
    fn drop(&mut self) {
        _ = self.lost.compare_exchange(NO_RANK, self.rank, Ordering::AcqRel, Ordering::Acquire);
        // SAFETY: the communicator and the events are live until here. The abort waits for the aborts of the other
        // ranks, whose threads stop waiting because of the flag that was set above.
        unsafe {
            _ = (self.nccl.abort)(self.comm);
            for &fence in &self.fences {
                _ = result::event::destroy(fence);
            }
        }
    }
}

/// Polls until `is_done` returns `true` or an error.
fn wait_until(mut is_done: impl FnMut() -> Result<bool, BackendError>) -> Result<(), BackendError> {
    let start = Instant::now();
    while !is_done()? {
        if start.elapsed() < SPIN_TIME {
            std::hint::spin_loop();
        } else {
            std::thread::sleep(POLL_INTERVAL);
        }
    }
    Ok(())
}

fn failed(what: &str) -> impl FnOnce(DriverError) -> BackendError {
    move |error| BackendError(format!("the GPU failed {what}: {error}"))
}

fn pointer(region: DeviceRegion) -> Result<*mut c_void, BackendError> {
    Ok(region.checked_address(region.bytes())?.get() as usize as *mut c_void)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_is_tried_before_the_folders_of_variables() {
        let variable = |name: &str| (name == "NCCL_HOME").then(|| OsString::from("/opt/nccl"));
        let paths: Vec<String> = candidates(variable).iter().map(|path| path.display().to_string()).collect();
        assert_eq!(paths[..3], ["libnccl.so.2", "libnccl.so", "/opt/nccl/lib/libnccl.so.2"]);
        assert_eq!(paths.len(), 5);
    }

    #[test]
    fn a_wait_ends_with_success_or_with_an_error() {
        let (start, mut polls) = (Instant::now(), 0);
        wait_until(|| Ok(start.elapsed() > 3 * SPIN_TIME)).unwrap();
        let lost = || BackendError("a rank is lost".to_owned());
        let error = wait_until(|| {
            polls += 1;
            if polls < 5 { Ok(false) } else { Err(lost()) }
        });
        assert_eq!((error, polls), (Err(lost()), 5));
    }

    /// Checks that if NCCL is installed, every function is found and the version is supported; and that if NCCL is
    /// missing, the error says what to install.
    #[test]
    fn nccl_is_found_or_the_error_says_what_to_install() {
        match version() {
            Ok(version) => assert!(version >= 21_400, "{version}"),
            Err(error) => {
                assert!(error.to_string().contains("libnccl.so.2 is neither on the loader's path"), "{error}");
            }
        }
    }
}
