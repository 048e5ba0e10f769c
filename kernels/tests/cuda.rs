//! Tests of the GPU code that need no GPU. If NVRTC is on LD_LIBRARY_PATH, they also compile every kernel.

#![cfg(feature = "cuda")]
#![allow(unsafe_code, clippy::unwrap_used)]

use surprisal_kernels::{Error, FATBINS, SOURCES, cuda, nvrtc};

#[test]
fn a_missing_driver_is_reported() {
    // SAFETY: this looks for a library.
    if unsafe { cudarc::driver::sys::is_culib_present() } {
        return;
    }
    let error = cuda::context(0).unwrap_err();
    assert_eq!(error.to_string(), "CUDA device 0 is not available: the CUDA driver (libcuda) was not found");
}

#[test]
fn nvcc_builds_an_image_of_every_file() {
    let home = std::env::var("CUDA_HOME").map(|home| format!("{home}/bin/nvcc"));
    let at_hand = std::env::var("NVCC").or(home).is_ok_and(|nvcc| std::path::Path::new(&nvcc).exists());
    assert_eq!(FATBINS.len(), if at_hand { SOURCES.len() } else { 0 });
    assert!(FATBINS.iter().zip(SOURCES).all(|((file, _), source)| *file == source.file));
    assert!(FATBINS.iter().all(|(_, image)| image.starts_with(&0xba55_ed50u32.to_le_bytes())));
}

#[test]
fn nvrtc_compiles_every_kernel_once() {
    let cache = tempfile::tempdir().unwrap();
    // SAFETY: this looks for a library.
    if !unsafe { cudarc::nvrtc::sys::is_culib_present() } {
        let error = nvrtc::cubin(&SOURCES[0], "sm_90a", Some(cache.path())).unwrap_err();
        let reason = "there is no built-in image, and libnvrtc was not found to compile the source";
        assert_eq!(error.to_string(), format!("cannot load embedding.cu for sm_90a: {reason}"));
        return;
    }
    for source in SOURCES {
        let image = nvrtc::cubin(source, "sm_90a", Some(cache.path())).unwrap();
        assert_eq!(&image[..4], b"\x7fELF");
        for kernel in source.kernels {
            let name = format!(".text.{kernel}\0");
            assert!(image.windows(name.len()).any(|bytes| bytes == name.as_bytes()), "{kernel} is not in the image");
        }
    }
    let files = || -> Vec<_> { cache.path().read_dir().unwrap().map(|entry| entry.unwrap().path()).collect() };
    assert_eq!(files().len(), SOURCES.len());

    // A cached image is returned; a truncated one is compiled again.
    let good = nvrtc::cubin(&SOURCES[0], "sm_90a", Some(cache.path())).unwrap();
    let path = files().into_iter().find(|path| path.to_string_lossy().contains("embedding-")).unwrap();
    std::fs::write(&path, &std::fs::read(&path).unwrap()[..100]).unwrap();
    assert_eq!(nvrtc::cubin(&SOURCES[0], "sm_90a", Some(cache.path())).unwrap(), good);
    assert!(std::fs::read(&path).unwrap().ends_with(&good));

    let error = nvrtc::cubin(&SOURCES[0], "sm_1", None).unwrap_err();
    assert!(matches!(error, Error::Compile { file: "embedding", .. }), "{error}");
}
