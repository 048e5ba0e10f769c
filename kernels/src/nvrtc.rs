//! Compilation of kernels at run time. NVRTC compiles a source file to a cubin, which is cached on disk.

// Calls to NVRTC, a C library, pass raw handles and buffers.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_int};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use cudarc::nvrtc::{result, sys};

use crate::error::Error;
use crate::sources::{HEADERS, Source};

/// The reason to compile an image when none is built in.
pub(crate) const NONE_BUILT_IN: &str = "there is no built-in image";

/// Returns an image of a file's kernels for an architecture such as `sm_90a`. Reads it from the folder `cache`, or
/// compiles it and saves it there. Needs no GPU.
///
/// # Errors
///
/// libnvrtc is missing, or rejects the source or the architecture. Failing to write the cache is not an error.
pub fn cubin(source: &Source, arch: &str, cache: Option<&Path>) -> Result<Vec<u8>, Error> {
    load_or_compile(source, arch, cache, NONE_BUILT_IN)
}

/// Returns the same image as [`cubin`]. Errors begin with `why`, the reason to compile an image.
pub(crate) fn load_or_compile(source: &Source, arch: &str, cache: Option<&Path>, why: &str) -> Result<Vec<u8>, Error> {
    let failed = |reason: String| Error::Compile { file: source.file, arch: arch.to_owned(), reason };
    // SAFETY: this looks for a library and runs its initializers. Those of libnvrtc are safe to run.
    if !unsafe { sys::is_culib_present() } {
        return Err(failed(format!("{why}, and libnvrtc was not found to compile the source")));
    }
    let path = cache.map(|folder| folder.join(format!("{}-{arch}-{}.cubin", source.file, key(source, arch))));
    if let Some(image) = path.as_ref().and_then(|path| read_cached(path)) {
        return Ok(image);
    }
    let image = compile(source, arch).map_err(|error| failed(format!("{why}, and NVRTC failed: {error}")))?;
    if let Some(path) = path {
        // If this fails, the next start compiles the image again.
        _ = write_cached(&path, &image);
    }
    Ok(image)
}

fn options(arch: &str) -> [String; 2] {
    [format!("--gpu-architecture={arch}"), "--std=c++17".to_owned()]
}

/// Returns a hash of everything that an image depends on.
fn key(source: &Source, arch: &str) -> String {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the library is loaded. The call writes two integers.
    unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) };
    let mut hasher = blake3::Hasher::new();
    let (options, version) = (options(arch).join(" "), format!("{major}.{minor}"));
    for part in HEADERS.map(|(_, text)| text).into_iter().chain([source.text, &options, &version]) {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

/// Reads a cached image; `None` if there is none, or if it does not match the hash at the beginning of its file.
fn read_cached(path: &Path) -> Option<Vec<u8>> {
    let mut file = std::fs::read(path).ok()?;
    let image = file.split_off(blake3::OUT_LEN.min(file.len()));
    (blake3::hash(&image).as_bytes()[..] == file[..]).then_some(image)
}

fn write_cached(path: &Path, image: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    std::fs::create_dir_all(&folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(blake3::hash(image).as_bytes())?;
    file.write_all(image)?;
    file.persist(path)?;
    Ok(())
}

fn compile(source: &Source, arch: &str) -> Result<Vec<u8>, String> {
    let c_string = |text: &str| CString::new(text).map_err(|error| error.to_string());
    let (text, name) = (c_string(source.text)?, c_string(&format!("{}.cu", source.file))?);
    let (mut names, mut headers) = (Vec::new(), Vec::new());
    for (name, text) in HEADERS {
        names.push(c_string(name)?);
        headers.push(c_string(text)?);
    }
    let [names_at, headers_at] =
        [&names, &headers].map(|strings| strings.iter().map(|s| s.as_ptr()).collect::<Vec<_>>());
    let mut program = std::ptr::null_mut();
    // SAFETY: the program, its source, name and headers live until the end of this function. Each buffer has the size
    // that NVRTC reports.
    unsafe {
        let count = HEADERS.len() as c_int;
        let (headers, names) = (headers_at.as_ptr(), names_at.as_ptr());
        sys::nvrtcCreateProgram(&raw mut program, text.as_ptr(), name.as_ptr(), count, headers, names)
            .result()
            .map_err(|error| format!("{error:?}"))?;
        let image = result::compile_program(program, &options(arch)).and_then(|()| {
            let mut size = 0;
            sys::nvrtcGetCUBINSize(program, &raw mut size).result()?;
            let mut image = vec![0u8; size];
            sys::nvrtcGetCUBIN(program, image.as_mut_ptr().cast()).result()?;
            Ok(image)
        });
        let image = image.map_err(|error| match result::get_program_log(program) {
            Ok(log) => format!("{error:?}\n{}", CStr::from_ptr(log.as_ptr()).to_string_lossy()),
            Err(_) => format!("{error:?}"),
        });
        result::destroy_program(program).map_err(|error| format!("{error:?}"))?;
        image
    }
}
