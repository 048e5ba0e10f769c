//! Writes the checkpoints that fuzzing starts from (see `fuzz/`) into the folder that is named.

use std::path::Path;

use surprisal_tests::tiny::TinyLlama;

fn main() -> std::io::Result<()> {
    let to = std::env::args().nth(1).ok_or_else(|| std::io::Error::other("usage: fuzz_seeds FOLDER"))?;
    std::fs::create_dir_all(&to)?;
    let small = TinyLlama {
        vocab: 10,
        hidden: 8,
        intermediate: 8,
        layers: 1,
        heads: 2,
        kv_heads: 1,
        head_dim: 4,
        ..TinyLlama::default()
    };
    for (name, tied) in [("tied", true), ("untied", false)] {
        let dir = tempfile::tempdir()?;
        TinyLlama { tied, ..small }.write(dir.path(), 1);
        let [config, weights] = ["config.json", "model.safetensors"].map(|file| std::fs::read(dir.path().join(file)));
        std::fs::write(Path::new(&to).join(name), [config?, vec![0], weights?].concat())?;
    }
    Ok(())
}
