//! Writes the random Llama of the CPU comparisons into a folder: hidden 768, 12 layers, 12 heads over 4, MLP 2048, vocabulary 32000.

use std::process::ExitCode;

use surprisal_bench::MODEL;

fn main() -> ExitCode {
    let Some(dir) = std::env::args_os().nth(1) else {
        eprintln!("usage: random_llama DIR");
        return ExitCode::from(2);
    };
    if let Err(error) = std::fs::create_dir_all(&dir) {
        eprintln!("error: {}: {error}", dir.display());
        return ExitCode::FAILURE;
    }
    MODEL.write(dir.as_ref(), 1);
    ExitCode::SUCCESS
}
