//! `fuzz_seeds FOLDER`: writes the checkpoints and requests with which fuzzing starts (see `fuzz/`).

use std::path::Path;

use surprisal_tests::tiny::TinyLlama;

/// Requests: a name, the byte that selects the route, the encoding and the response format, and the body.
const REQUESTS: [(&str, u8, &str); 8] = [
    (
        "queries",
        0,
        r#"{"model":"flat","queries":[{"id":"q","context":"ab","target":"cd"},{"target":[1,2]}],"detail":"tokens","bos":"none"}"#,
    ),
    ("pairs", 0, r#"{"contexts":["a",[2]],"targets":["b"],"pairs":[[0,0],[1,0]],"detail":"sum","priority":1}"#),
    ("lines", 130, r#"{"contexts":["a"],"targets":["b"],"pairs":"all","bos":"auto"}"#),
    (
        "completion",
        1,
        r#"{"prompt":["ab",[1]],"max_tokens":2,"echo":true,"logprobs":0,"temperature":0.5,"top_p":0.9,"top_k":-1,"seed":1,"stop":["x"],"n":2}"#,
    ),
    ("stream", 1, r#"{"prompt":"ab","stream":true,"stream_options":{"include_usage":true},"prompt_logprobs":0}"#),
    (
        "generate",
        2,
        r#"{"input_ids":[[1,2]],"return_logprob":true,"logprob_start_len":0,"sampling_params":{"max_new_tokens":1,"stop":"x"}}"#,
    ),
    ("tokenize", 3, r#"{"prompt":"ab","add_special_tokens":false}"#),
    ("detokenize", 4, r#"{"tokens":[97,98]}"#),
];

fn main() -> std::io::Result<()> {
    let to = std::env::args().nth(1).ok_or_else(|| std::io::Error::other("usage: fuzz_seeds FOLDER"))?;
    let (checkpoints, requests) = (Path::new(&to).join("checkpoint"), Path::new(&to).join("requests"));
    std::fs::create_dir_all(&requests)?;
    for (name, route, body) in REQUESTS {
        std::fs::write(requests.join(name), [&[route], body.as_bytes()].concat())?;
    }
    std::fs::create_dir_all(&checkpoints)?;
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
        std::fs::write(checkpoints.join(name), [config?, vec![0], weights?].concat())?;
    }
    Ok(())
}
