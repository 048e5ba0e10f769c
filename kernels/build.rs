//! Compiles the kernels as C++ for the CPU shim, and as fatbins if `NVCC` or `CUDA_HOME` leads to nvcc.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const KERNELS: &[&str] = &[
    "embedding",
    "fp8",
    "kv_cache",
    "logprobs",
    "paged_attention",
    "paged_decode",
    "rank_sum",
    "rms_norm",
    "silu_mul",
    #[cfg(feature = "shim")]
    "wrappers",
];
const ARCHITECTURES: [&str; 3] = ["80", "90a", "100"];

fn main() -> Result<(), Box<dyn Error>> {
    for path in ["cpu", "port.cuh", "attention_tile.cuh"] {
        println!("cargo:rerun-if-changed={path}");
    }
    for kernel in KERNELS {
        println!("cargo:rerun-if-changed={kernel}.cu");
    }
    for variable in ["NVCC", "CUDA_HOME"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    #[cfg(feature = "shim")]
    shim()?;
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("fatbins.rs"), fatbins()?)?;
    Ok(())
}

#[cfg(feature = "shim")]
fn shim() -> Result<(), cc::Error> {
    // Fused multiply-adds would make the shim's sums differ between compilers.
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").file("cpu/all.cpp").opt_level(2).warnings(false);
    // Silences a note that very old compilers pass arguments aligned to 128 bytes differently.
    build.flag_if_supported("-Wno-psabi");
    build.flag("-fno-strict-aliasing").flag("-ffp-contract=off").try_compile("surprisal_kernels_cpu")
}

/// Returns the Rust source of the table of the kernels' images. Without nvcc, the table is empty.
fn fatbins() -> Result<String, Box<dyn Error>> {
    let home = env::var("CUDA_HOME").map(|home| format!("{home}/bin/nvcc"));
    let nvcc = env::var("NVCC").or(home).ok().filter(|nvcc| Path::new(nvcc).exists());
    let mut table = String::from("&[\n");
    for kernel in KERNELS {
        let Some(nvcc) = &nvcc else { break };
        let image = PathBuf::from(env::var("OUT_DIR")?).join(format!("{kernel}.fatbin"));
        let mut command = Command::new(nvcc);
        command.args(["-std=c++17", "-O3", "--fatbin", "-Xfatbin", "-compress-all", "-o"]).arg(&image);
        for arch in ARCHITECTURES {
            command.arg(format!("-gencode=arch=compute_{arch},code=sm_{arch}"));
        }
        command.args(["-gencode=arch=compute_80,code=compute_80"]).arg(format!("{kernel}.cu"));
        if !command.status()?.success() {
            return Err(format!("nvcc failed on {kernel}.cu").into());
        }
        table += &format!("    ({kernel:?}, include_bytes!({:?})),\n", image.display().to_string());
    }
    Ok(table + "]")
}
