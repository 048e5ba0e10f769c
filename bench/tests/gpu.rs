//! Runs the GPU program on the CPU shim, which tests everything except the hardware.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use serde_json::Value;

#[test]
fn the_gpu_program_runs_on_the_shim() {
    let out = tempfile::tempdir().unwrap();
    let run = Command::new(env!("CARGO_BIN_EXE_gpu")).args(["--device", "shim", "--out"]).arg(out.path()).output();
    let run = run.unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let report: Value = serde_json::from_slice(&std::fs::read(out.path().join("gpu.json")).unwrap()).unwrap();
    let checks = report["checks"].as_array().unwrap();
    assert_eq!(checks.len(), 29);
    assert!(checks.iter().all(|check| check["failure"].is_null()), "{checks:?}");
    assert!(report["timings"].as_array().unwrap().iter().all(|timing| timing["teraflops"].as_f64().unwrap() > 0.0));
    let prefill = report["prefill"].as_array().unwrap();
    assert_eq!(
        prefill.iter().map(|scored| scored["tokens"].as_u64().unwrap()).collect::<Vec<_>>(),
        [130, 200, 130, 200]
    );
    assert!(prefill.iter().all(|scored| scored["tokens_per_second"].as_f64().unwrap() > 0.0));
    assert_eq!(std::fs::read(out.path().join("gpu.md")).unwrap(), run.stdout);
}

#[test]
fn unknown_devices_are_rejected() {
    let run = Command::new(env!("CARGO_BIN_EXE_gpu")).args(["--device", "abacus", "--out", "x"]).output().unwrap();
    assert!(!run.status.success());
    assert!(String::from_utf8_lossy(&run.stderr).contains("usage: gpu --device shim|cuda:N"));
}

#[test]
fn the_hopper_benchmarks_run_on_the_shim() {
    let out = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpu"));
    let run = command.args(["--device", "shim", "--out"]).arg(out.path()).arg("--hopper").output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let report: Value = serde_json::from_slice(&std::fs::read(out.path().join("hopper.json")).unwrap()).unwrap();
    let timings = report["timings"].as_array().unwrap();
    assert_eq!(timings.len(), 4);
    assert!(timings.iter().all(|timing| timing["name"].as_str().unwrap().contains("(0 of ")), "{timings:?}");
}
