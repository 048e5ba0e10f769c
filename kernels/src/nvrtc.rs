//! Compiling a kernel where it runs: NVRTC to a cubin, kept on disk.

// The boundary to C: NVRTC's handles and buffers.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_int};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use cudarc::nvrtc::{result, sys};

use crate::error::Error;
use crate::sources::{HEADERS, Source};

/// The reason for compiling an image if nothing failed before.
pub(crate) const NONE_BUILT_IN: &str = "no image was built in";

/// An image of a file's kernels for an architecture such as `sm_90a`: from the cache if it is there, else compiled and put
/// there. Needs no GPU.
///
/// # Errors
///
/// There is no libnvrtc, or it rejects the source or the architecture. A cache that cannot be written is no error.
pub fn cubin(source: &Source, arch: &str, cache: Option<&Path>) -> Result<Vec<u8>, Error> {
    load_or_compile(source, arch, cache, NONE_BUILT_IN)
}

/// Like [`cubin`], but the error says `why` an image is made.
pub(crate) fn load_or_compile(source: &Source, arch: &str, cache: Option<&Path>, why: &str) -> Result<Vec<u8>, Error> {
    let failed = |reason: String| Error::Compile { file: source.file, arch: arch.to_owned(), reason };
    // SAFETY: it looks for a library and runs its initializers, which libnvrtc's survive.
    if !unsafe { sys::is_culib_present() } {
        return Err(failed(format!("{why}, and there is no libnvrtc to make one")));
    }
    let path = cache.map(|folder| folder.join(format!("{}-{arch}-{}.cubin", source.file, key(source, arch))));
    if let Some(image) = path.as_ref().and_then(|path| read_cached(path)) {
        return Ok(image);
    }
    let image = compile(source, arch).map_err(|error| failed(format!("{why}, and NVRTC makes none: {error}")))?;
    if let Some(path) = path {
        // Next time it is compiled again; the image at hand is good.
        _ = write_cached(&path, &image);
    }
    Ok(image)
}

fn options(arch: &str) -> [String; 2] {
    [format!("--gpu-architecture={arch}"), "--std=c++17".to_owned()]
}

/// Hashes everything that an image depends on.
fn key(source: &Source, arch: &str) -> String {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the library is there; it writes two integers.
    unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) };
    let mut hasher = blake3::Hasher::new();
    let (options, version) = (options(arch).join(" "), format!("{major}.{minor}"));
    for part in HEADERS.map(|(_, text)| text).into_iter().chain([source.text, &options, &version]) {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

/// Reads an image, if it is whole: its hash comes first.
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
    // SAFETY: the program is live until the end of this function, as are its text, name and headers; each buffer has the
    // size that NVRTC asked for.
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
