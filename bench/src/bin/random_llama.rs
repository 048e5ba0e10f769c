//! Writes the random Llama of the CPU comparisons into a folder: hidden size 768, 12 layers, 12 query heads, 4 KV
//! heads, MLP 2048, and a vocabulary of 32000 or the given size.

use std::process::ExitCode;

use surprisal_bench::MODEL;
use surprisal_tests::tiny::TinyLlama;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let vocab = args.nth(1).map_or(Some(MODEL.vocab), |vocab| vocab.to_str()?.parse().ok());
    let (Some(dir), Some(vocab)) = (std::env::args_os().nth(1), vocab) else {
        eprintln!("usage: random_llama DIR [VOCABULARY]");
        return ExitCode::from(2);
    };
    if let Err(error) = std::fs::create_dir_all(&dir) {
        eprintln!("error: {}: {error}", dir.display());
        return ExitCode::FAILURE;
    }
    TinyLlama { vocab, ..MODEL }.write(dir.as_ref(), 1);
    ExitCode::SUCCESS
}
