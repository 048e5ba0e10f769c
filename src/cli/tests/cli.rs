//! The binary as a person uses it: serve, score, estimate; exit codes, and errors that say what to do.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

mod support;

use support::{Serving, run, stderr, surprisal};
use surprisal_tests::tiny::TinyLlama;

#[test]
fn a_served_oracle_is_scored_and_estimated_and_stops_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut serving = Serving::start(dir.path());

    let scored = run(dir.path(), &["score", "--url", &serving.url, "--context", "baba+", "baba+ baba-", "--json"]);
    assert!(scored.status.success(), "{}", stderr(&scored));
    let answer: Value = serde_json::from_slice(&scored.stdout).unwrap();
    let logprobs = answer["results"][0]["logprobs"].as_array().unwrap();
    // The coin was seen: its own side has the symbol's whole probability, the other one a millionth of it.
    let gap = logprobs[0].as_f64().unwrap() - logprobs[1].as_f64().unwrap();
    assert!((gap - 1e6f64.ln()).abs() < 1e-4, "{answer}");
    let plain = run(dir.path(), &["score", "--url", &serving.url, "baba+ baba-"]);
    assert!(String::from_utf8_lossy(&plain.stdout).contains("nats in all, 2 tokens"));

    let text = dir.path().join("text.txt");
    std::fs::write(&text, "baba+ tuve- baba+ baba+ ".repeat(40)).unwrap();
    let out = dir.path().join("report");
    let common = ["estimate", text.to_str().unwrap(), "--url", &serving.url, "--windows", "6", "--splits", "2,4,8"];
    let estimated = run(dir.path(), &[&common[..], &["--out", out.to_str().unwrap(), "--json"]].concat());
    assert!(estimated.status.success(), "{}", stderr(&estimated));
    let report: Value = serde_json::from_slice(&estimated.stdout).unwrap();
    assert_eq!(report["rows"].as_array().unwrap().len(), 3);
    assert!(std::fs::read_to_string(out.join("report.html")).unwrap().contains("<svg"));
    let explained = run(dir.path(), &[&common[..], &["--explain"]].concat());
    assert!(String::from_utf8_lossy(&explained.stdout).contains("queries"));

    let ratios = run(
        dir.path(),
        &[&common[..], &["--ratios", "2,3", "--bits", "--json", "--out"], &[out.to_str().unwrap()]].concat(),
    );
    let report: Value = serde_json::from_slice(&ratios.stdout).unwrap();
    assert_eq!((report["rows"].as_array().unwrap().len(), &report["unit"]), (6, &"bits".into()));
    assert!(out.join("bipartite-3.svg").is_file() && out.join("bipartite.csv").is_file());

    assert!(Command::new("kill").arg(serving.child.id().to_string()).status().unwrap().success());
    assert!(serving.child.wait().unwrap().success(), "SIGTERM is a clean end");
}

#[test]
fn a_second_signal_ends_a_server_that_waits_for_a_request() {
    let dir = tempfile::tempdir().unwrap();
    let mut serving = Serving::start(dir.path());
    let address = serving.url.strip_prefix("http://").unwrap().to_owned();
    let mut asking = TcpStream::connect(&address).unwrap();
    asking
        .write_all(
            b"POST /tokenize HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{",
        )
        .unwrap();
    let get = |path: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let until = |path: &str, said: &str| {
        while !get(path).contains(said) {
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    until("/metrics", "surprisal_admitted_requests 1");
    let kill = || assert!(Command::new("kill").arg(serving.child.id().to_string()).status().unwrap().success());
    kill();
    until("/ready", "503");
    kill();
    assert!(serving.child.wait().unwrap().success());
    assert_eq!(asking.read(&mut [0; 1]).unwrap_or(0), 0, "the request is cut off, not answered");
}

#[test]
fn an_experiment_file_is_explained_and_run_without_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let preset = "../../configs/experiments/oracle.toml";
    let explained = run(dir.path(), &["estimate", preset, "--explain"]);
    let text = String::from_utf8(explained.stdout).unwrap();
    assert!(text.contains("queries") && text.contains("the paper's scripts"), "{text}");
    let out = dir.path().join("report");
    let estimated = run(dir.path(), &["estimate", preset, "--json", "--out", out.to_str().unwrap()]);
    assert!(estimated.status.success(), "{}", stderr(&estimated));
    let report: Value = serde_json::from_slice(&estimated.stdout).unwrap();
    assert!(report["rows"][0]["truth"].is_number());
    assert!(["report.html", "bipartite-4.svg", "bipartite.csv"].iter().all(|name| out.join(name).is_file()));
}

/// A load leaves results that can be compared, and curves; two servers are measured in turns.
#[test]
fn a_server_is_put_under_load_and_compared() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(dir.path());
    let out = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (a, b) = (out("a"), out("b"));
    let shape =
        ["--context-length", "6", "--target-length", "2", "--targets", "2", "--prefixes", "3", "--warm-up", "0"];
    let common = [&["bench", "--requests", "12", "--clients", "1,2"][..], &shape].concat();
    let measured = run(dir.path(), &[&common[..], &["--url", &serving.url, "--out", &a, "--json"]].concat());
    assert!(measured.status.success(), "{}", stderr(&measured));
    let report: Value = serde_json::from_slice(&measured.stdout).unwrap();
    let outcomes = report["outcomes"].as_array().unwrap();
    assert_eq!(outcomes.iter().map(|one| one["scored_tokens"].as_u64().unwrap()).collect::<Vec<_>>(), [48, 48]);
    assert_eq!(outcomes[0]["repeats"]["asked"], outcomes[0]["repeats"]["same"]);

    let peer = format!("vllm+{}", serving.url);
    let compared = run(dir.path(), &[&common[..], &["--compare", &serving.url, &peer, "--out", &b]].concat());
    assert!(compared.status.success(), "{}", stderr(&compared));
    let table = String::from_utf8(compared.stdout).unwrap();
    assert!(table.contains("2 clients") && table.contains("first/second"), "{table}");
    let (first, second) = (format!("{b}/first.json"), format!("{b}/second.json"));
    let again = run(dir.path(), &["bench", "--compare", &first, &second]);
    assert_eq!(String::from_utf8(again.stdout).unwrap(), table, "what was written says the same");
    for name in ["a/result.json", "a/curves.html", "b/curves.svg"] {
        assert!(dir.path().join(name).is_file(), "{name}");
    }
    let other = run(dir.path(), &["bench", "--compare", &format!("{a}/result.json"), "/no/such.json"]);
    assert_eq!(other.status.code(), Some(1));
    assert!(stderr(&other).contains("/no/such.json"));

    let swept = ["bench", "--url", &serving.url, "--sweep", "--duration", "0.3", "--json"];
    let swept = run(dir.path(), &[&swept[..], &shape].concat());
    assert!(swept.status.success(), "{}", stderr(&swept));
    let report: Value = serde_json::from_slice(&swept.stdout).unwrap();
    let rates: Vec<f64> =
        report["outcomes"].as_array().unwrap().iter().map(|one| one["load"]["rate"].as_f64().unwrap()).collect();
    assert_eq!(rates.len(), 6);
    assert!((rates[5] / rates[0] - 8.0).abs() < 1e-9, "{rates:?}");
}

#[test]
fn a_load_has_the_servers_key_or_says_how_to_give_it() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::with(dir.path(), &[("SURPRISAL_API_KEYS", "secret")]);
    let bench = ["bench", "--url", &serving.url, "--requests", "2", "--warm-up", "0", "--workload", "documents"];
    for (key, code) in [(&[][..], 1), (&["--api-key", "wrong"], 1), (&["--api-key", "secret"], 0)] {
        let output = run(dir.path(), &[&bench[..], &["--length", "8"], key].concat());
        assert_eq!(output.status.code(), Some(code), "{key:?}: {}", stderr(&output));
        assert_eq!(stderr(&output).contains("SURPRISAL_API_KEY"), code == 1, "{}", stderr(&output));
        let output = run(dir.path(), &[&["score", "--url", &serving.url, "baba+"], key].concat());
        assert_eq!(output.status.code(), Some(code), "{key:?}: {}", stderr(&output));
        assert_eq!(stderr(&output).contains("SURPRISAL_API_KEY"), code == 1, "{}", stderr(&output));
    }
}

/// Flags before environment, environment before file, file before defaults.
#[test]
fn settings_have_one_precedence_and_are_printed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("surprisal.toml");
    std::fs::write(&file, "port = 1\nthreads = 1\ncache_mib = 1\n[server]\nmax_queries = 1\n").unwrap();
    let printed = surprisal(dir.path())
        .args(["serve", "--print-config", "--config", file.to_str().unwrap(), "--port", "3"])
        .envs([("SURPRISAL_PORT", "2"), ("SURPRISAL_THREADS", "2"), ("SURPRISAL_API_KEYS", "secret")])
        .envs([("SURPRISAL_CACHE_MB", "7"), ("SURPRISAL_MAX_RUNNING", "3"), ("SURPRISAL_API_KEY", "theirs")])
        .output()
        .unwrap();
    assert!(printed.status.success(), "{}", stderr(&printed));
    let text = String::from_utf8_lossy(&printed.stdout);
    for line in ["port = 3", "threads = 2", "cache_mib = 1", "max_queries = 1", "token_budget = 512"] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    assert!(!text.contains("secret"));
    let told = stderr(&printed);
    assert!(told.contains("nothing reads SURPRISAL_CACHE_MB, SURPRISAL_MAX_RUNNING"), "{told}");
    assert!(!told.contains("SURPRISAL_PORT") && !told.contains("SURPRISAL_API_KEY"), "{told}");
}

/// What it is printed to may be a pipe that nobody reads any more.
#[test]
fn a_manual_that_is_not_read_to_its_end_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    for args in [&["man"][..], &["completions", "bash"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = surprisal(dir.path()).args(args).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{args:?}: {}", stderr(&output));
    }
}

/// A model without BOS needs something before a target, and the request that is proposed has it.
#[test]
fn the_request_to_try_is_answered_without_bos() {
    let dir = tempfile::tempdir().unwrap();
    TinyLlama::default().write(dir.path(), 1);
    std::fs::write(dir.path().join("tokenizer_config.json"), r#"{"add_bos_token": false}"#).unwrap();
    let mut command = surprisal(dir.path());
    command.args(["serve", "--port", "0", "--cache-mib", "64", "--model", dir.path().to_str().unwrap()]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let tried = lines.find_map(|line| line.strip_prefix("try: ").map(str::to_owned)).unwrap();
    let answer = Command::new("sh").args(["-c", &tried]).output().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert_eq!(answer["results"][0]["tokens"], 3, "{tried}: {answer}");
}

#[test]
fn what_is_not_a_model_is_told_what_to_give() {
    let dir = tempfile::tempdir().unwrap();
    TinyLlama::default().write(dir.path(), 1);
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let weights = path("model.safetensors");
    std::fs::write(path("other.json"), [0xff; 9]).unwrap();
    std::fs::remove_file(path("tokenizer.json")).unwrap();
    for (args, hint) in [
        (&["serve", "--port", "0", "--model", &weights][..], "give the folder that it is in"),
        (&["serve", "--port", "0", "--model", &path("")], "tokenizer.json: there is no such file"),
        (&["doctor", "--model", &weights], "give the folder that it is in"),
        (&["doctor", "--model", &path("other.json")], "other.json: "),
        (&["doctor", "--model", &path("other.gguf")], "a GGUF file has none"),
    ] {
        let output = run(dir.path(), args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(hint), "{args:?}: {}", stderr(&output));
    }
    let oracle = run(dir.path(), &["doctor", "--model", "oracle"]);
    assert!(oracle.status.success(), "{}", stderr(&oracle));
    assert!(String::from_utf8_lossy(&oracle.stdout).contains("sequences up to 2,048 tokens"));
}

#[test]
fn numbers_of_a_gpu_need_one() {
    let dir = tempfile::tempdir().unwrap();
    for numbers in [["--dtype", "fp8"], ["--kv-cache-dtype", "fp8"]] {
        let mut command = surprisal(dir.path());
        command.args(["serve", "--port", "0"]).args(numbers).env("CUDA_VISIBLE_DEVICES", "");
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{numbers:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("dtype fp8 and kv_cache_dtype need a GPU"), "{}", stderr(&output));
    }
}

#[test]
fn an_address_with_the_path_of_another_api_is_told_from_a_server_s() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(dir.path());
    let scored = run(dir.path(), &["score", "baba+", "--url", &format!("{}/v1", serving.url)]);
    assert_eq!(scored.status.code(), Some(1));
    assert!(stderr(&scored).contains("give the server's address without /v1"), "{}", stderr(&scored));
}

/// From config.json alone: the 405B model in FP8 needs eight H100.
#[test]
fn the_doctor_plans_a_model() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.json");
    let kept: Vec<String> = (0..126).map(|layer| format!("model.layers.{layer}.self_attn")).collect();
    let json = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "vocab_size": 128256, "hidden_size": 16384, "intermediate_size": 53248,
        "num_hidden_layers": 126, "num_attention_heads": 128, "num_key_value_heads": 8, "torch_dtype": "bfloat16",
        "max_position_embeddings": 131072,
        "quantization_config": {"quant_method": "fbgemm_fp8", "modules_to_not_convert": kept},
    });
    std::fs::write(&config, json.to_string()).unwrap();
    let planned = run(dir.path(), &["doctor", "--model", config.to_str().unwrap(), "--json"]);
    assert!(planned.status.success(), "{}", stderr(&planned));
    let report: Value = serde_json::from_slice(&planned.stdout).unwrap();
    let gpus = report["model"]["gpus"].as_array().unwrap();
    let h100 = gpus.iter().find(|gpu| gpu["kind"] == "H100 80 GB").unwrap();
    assert_eq!(h100["count"], 8);
    assert!(run(dir.path(), &["doctor"]).status.success());
}

/// Llama 3.1 405B in FP8 as its config.json says it, divided among eight H100.
#[test]
fn the_doctor_plans_the_paper_s_model_by_rank() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.json");
    let kept: Vec<String> = (0..126)
        .flat_map(|layer| ["q", "k", "v", "o"].map(|part| format!("model.layers.{layer}.self_attn.{part}_proj")))
        .chain(["lm_head".to_owned()])
        .collect();
    let json = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "attention_bias": false, "bos_token_id": 128000, "eos_token_id": 128001,
        "hidden_act": "silu", "hidden_size": 16384, "intermediate_size": 53248, "max_position_embeddings": 131072,
        "mlp_bias": false, "model_type": "llama", "num_attention_heads": 128, "num_hidden_layers": 126,
        "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": false,
        "torch_dtype": "bfloat16", "vocab_size": 128256,
        "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_type": "llama3",
            "original_max_position_embeddings": 8192},
        "quantization_config": {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0, "modules_to_not_convert": kept},
    });
    std::fs::write(&config, json.to_string()).unwrap();
    let args = ["doctor", "--model", config.to_str().unwrap(), "--tensor-parallel-size", "8"];
    let planned = run(dir.path(), &[&args[..], &["--json"]].concat());
    assert!(planned.status.success(), "{}", stderr(&planned));
    let report: Value = serde_json::from_slice(&planned.stdout).unwrap();
    let model = &report["model"];
    assert_eq!(model["parameters"], 405_853_388_800_u64);
    let gpu = |kind: &str| model["gpus"].as_array().unwrap().iter().find(|gpu| gpu["kind"] == kind).unwrap();
    let of = |gpu: &Value, field: &str| gpu[field].as_u64().unwrap();
    // The MLPs in FP8 with a scale of four bytes an output, all else in bf16.
    let mlp = 126 * 3 * 16384 * 53248;
    let weights = mlp + 126 * 4 * (2 * 53248 + 16384) + 2 * (405_853_388_800 - mlp);
    // Of eight key-value heads a rank has one: keys and values of 128 numbers in bf16, in each layer.
    let token = 126 * 2 * 128 * 2;
    let h100 = gpu("H100 80 GB");
    assert_eq!((of(h100, "count"), of(h100, "weight_bytes")), (8, weights / 8));
    assert_eq!(of(h100, "cache_tokens"), (72_000_000_000 - weights / 8) / token);
    assert!(of(h100, "cache_tokens") > 131_072);
    // Two operations a weight that is multiplied with, and attention's four a dimension of each query head and token before.
    let operations = 2 * (405_853_388_800 - 128_256 * 16384 - 253 * 16384) + 4 * 126 * 16384 * 1024;
    let peak = u128::from(8 * 989_u64) * 1_000_000_000_000 / operations;
    assert_eq!(u128::from(of(h100, "peak_tokens_per_second")), peak);
    assert!(gpu("A100 40 GB").get("cache_tokens").is_none_or(Value::is_null));
    let told = String::from_utf8(run(dir.path(), &args).stdout).unwrap();
    let line = told.lines().find(|line| line.contains("H100")).unwrap();
    assert!(line.trim_start().starts_with("8 x H100 80 GB") && line.contains("tokens of cache"), "{told}");
    assert!(told.lines().any(|line| line.contains("A100 40 GB") && line.contains("they do not fit")), "{told}");
}

/// Where there is no terminal for a bar, each tenth is a line.
#[test]
fn how_far_a_large_model_is_read_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let shape = TinyLlama { hidden: 1024, intermediate: 6000, layers: 2, ..TinyLlama::default() };
    shape.write(dir.path(), 1);
    let mut command = surprisal(dir.path());
    command.args(["serve", "--port", "0", "--cache-mib", "64", "--model", dir.path().to_str().unwrap()]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut told = String::new();
    while !told.lines().any(|line| line.starts_with("serving")) {
        assert!(said.read_line(&mut told).unwrap() > 0, "{told}");
    }
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    said.read_to_string(&mut told).unwrap();
    assert!(child.wait().unwrap().success(), "{told}");
    let lines = |message: &str| told.lines().filter(|line| line.contains(message)).count();
    assert!((1..=10).contains(&lines("checking weights")) && (5..=10).contains(&lines("loading weights")), "{told}");
}

/// Presets divide models among as many H100 as hold them, with room for hundreds of thousands of tokens.
#[test]
fn the_doctor_agrees_with_the_presets_of_several_gpus() {
    let kept: Vec<String> =
        (0..126).map(|layer| format!("model.layers.{layer}.self_attn")).chain(["lm_head".into()]).collect();
    let fp8 = serde_json::json!({"quant_method": "fbgemm_fp8", "modules_to_not_convert": kept});
    for (preset, [hidden, mlp, layers, heads], quantization, gigabytes, tokens) in [
        ("llama-3.1-70b-4h100", [8192, 28672, 80, 64], Value::Null, 35, 440_000),
        ("llama-3.1-405b-fp8-8h100", [16384, 53248, 126, 128], fp8, 60, 170_000),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let text = std::fs::read_to_string(format!("../../configs/{preset}.toml")).unwrap();
        let ranks = text.parse::<toml::Table>().unwrap()["tensor_parallel_size"].as_integer().unwrap();
        let config = dir.path().join("config.json");
        let mut json = serde_json::json!({
            "architectures": ["LlamaForCausalLM"], "vocab_size": 128256, "hidden_size": hidden,
            "intermediate_size": mlp, "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": 8, "torch_dtype": "bfloat16", "max_position_embeddings": 131072,
        });
        if !quantization.is_null() {
            json["quantization_config"] = quantization;
        }
        std::fs::write(&config, json.to_string()).unwrap();
        let (config, size) = (config.to_str().unwrap(), ranks.to_string());
        let planned = run(dir.path(), &["doctor", "--model", config, "--tensor-parallel-size", &size, "--json"]);
        assert!(planned.status.success(), "{}", stderr(&planned));
        let report: Value = serde_json::from_slice(&planned.stdout).unwrap();
        let gpus = report["model"]["gpus"].as_array().unwrap();
        let h100 = gpus.iter().find(|gpu| gpu["kind"] == "H100 80 GB").unwrap();
        let weights = h100["weight_bytes"].as_u64().unwrap() / 1_000_000_000;
        assert_eq!((h100["count"].as_i64(), weights), (Some(ranks), gigabytes), "{preset}: {h100}");
        assert!(h100["cache_tokens"].as_u64().unwrap() > tokens, "{preset}: {h100}");
    }
}

/// What was estimated is shown again, in another unit, and side by side.
#[test]
fn reports_are_written_again_and_compared() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let experiment = |name: &str, doubt: &str| {
        let text = format!(
            "seed = 2\n[corpus]\nkind = \"santa-fe\"\ndocuments = 30\nsymbols = 64\nexponent = 1.3\ndoubt = {doubt}\n\
             [measure]\nsplits = [2, 4, 8]\nratios = [2, 3]\nresamples = 20\n"
        );
        std::fs::write(path(&format!("{name}.toml")), text).unwrap();
        let output = run(dir.path(), &["estimate", &path(&format!("{name}.toml")), "--out", &path(name), "--json"]);
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let (sure, doubting) = (experiment("sure", "1e-6"), experiment("doubting", "0.2"));
    let file = |name: &str| std::fs::read_to_string(path(name)).unwrap();
    let before = file("sure/report.html");
    assert!(run(dir.path(), &["report", &path("sure")]).status.success());
    assert!(file("sure/report.html") == before, "the same report to the byte");
    let bits = run(
        dir.path(),
        &["report", &path("sure/report.json"), "--unit", "bits", "--title", "In <bits>", "--out", &path("bits")],
    );
    assert!(bits.status.success(), "{}", stderr(&bits));
    let again: Value = serde_json::from_str(&file("bits/report.json")).unwrap();
    let direct = |report: &Value| report["rows"][2]["direct"]["value"].as_f64().unwrap();
    assert!((direct(&again) * 2f64.ln() - direct(&sure)).abs() < 1e-12);
    assert!(file("bits/report.html").contains("In &lt;bits&gt;") && Path::new(&path("bits/bipartite-3.svg")).is_file());

    let named = format!("no doubt={}", path("sure"));
    let compared = run(dir.path(), &["compare", &named, &path("doubting"), "--out", &path("both")]);
    assert!(compared.status.success(), "{}", stderr(&compared));
    let table = String::from_utf8(compared.stdout).unwrap();
    assert!(table.lines().filter(|line| line.starts_with("no doubt")).count() >= 4, "{table}");
    let (html, csv) = (file("both/compare.html"), file("both/compare.csv"));
    assert!(html.contains("no doubt") && html.contains("<svg") && file("both/compare-direct-2.svg").contains("xmlns"));
    let value = |name: &str| {
        let line = csv.lines().find(|line| line.starts_with(name) && line.contains(",2,16,direct,")).unwrap();
        line.split(',').nth(5).unwrap().parse::<f64>().unwrap()
    };
    assert_eq!((value("no doubt"), value(&path("doubting"))), (direct(&sure), direct(&doubting)));
    let same = run(dir.path(), &["compare", &path("sure"), &path("sure")]);
    assert!(stderr(&same).contains("name of a report"), "{}", stderr(&same));
}

/// A reader of the log that reads no more holds up no request.
#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = surprisal(dir.path());
    command.args(["serve", "--port", "0"]).env("SURPRISAL_LOG", "debug").stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.find(|line| line.starts_with("serving")).unwrap();
    let address = line.split_whitespace().find_map(|word| word.strip_prefix("http://")).unwrap();
    // Far more than a pipe holds.
    for _ in 0..2000 {
        let mut stream = TcpStream::connect(address.trim_end_matches(',')).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A divided model scores as a whole one does, to the bit in 2, 4 or 8 ranks, and says where it is not.
#[test]
fn a_model_is_served_in_ranks() {
    let dir = tempfile::tempdir().unwrap();
    let score = |size: &str| {
        let serving = Serving::with(dir.path(), &[("SURPRISAL_TENSOR_PARALLEL_SIZE", size)]);
        let output = run(dir.path(), &["score", "baba+ tuve- baba+ tuve+", "--url", &serving.url, "--json"]);
        assert!(output.status.success(), "{}", stderr(&output));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        let logprobs = answer["results"][0]["logprobs"].as_array().unwrap().clone();
        let fingerprint = answer["fingerprint"].as_str().unwrap().to_owned();
        (logprobs.iter().map(|logprob| logprob.as_f64().unwrap()).collect::<Vec<_>>(), fingerprint)
    };
    let (one, whole) = score("1");
    assert_eq!((one.len(), score("2")), (4, (one.clone(), whole.clone())));
    let (three, divided) = score("3");
    assert!(one.iter().zip(&three).all(|(one, three)| (one - three).abs() < 1e-4), "{one:?} {three:?}");
    assert_eq!(divided, format!("{whole}-tp3"));
}

/// What is installed beside the program names every command.
#[test]
fn the_program_says_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let text = |args: &[&str]| String::from_utf8(run(dir.path(), args).stdout).unwrap();
    let version = text(&["--version"]);
    assert!(version.starts_with("surprisal 0.") && version.contains("commit"), "{version}");
    let features = version.split_once("features: ").unwrap().1;
    assert_eq!(features.contains("cuda"), cfg!(feature = "cuda"), "{version}");
    assert_eq!(text(&["-V"]).trim(), format!("surprisal {}", env!("CARGO_PKG_VERSION")));
    let (bash, man) = (text(&["completions", "bash"]), text(&["man"]));
    for command in ["serve", "score", "estimate", "merge", "report", "compare", "demo", "bench", "doctor"] {
        assert!(bash.contains(command) && man.contains(command), "{command}");
    }
    let pages = dir.path().join("man");
    assert!(run(dir.path(), &["man", "--out", pages.to_str().unwrap()]).status.success());
    assert!(std::fs::read_to_string(pages.join("surprisal-bench.1")).unwrap().contains("Poisson"));
}

#[test]
fn errors_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad.toml");
    std::fs::write(&bad, "prot = 1").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let closed = "http://127.0.0.1:1";
    for (args, code, hint) in [
        (&["serve", "--no-such-flag"][..], 2, "--help"),
        (&["serve", "--cache-mib", "0", "--port", "0"], 2, "cache_mib"),
        (&["serve", "--cache-mib", "1099511627776", "--device", "cpu", "--port", "0"], 1, "(1073741824.0 GiB), but it"),
        (&["serve", "--max-length", "999999", "--port", "0"], 2, "max_length is 999999, but"),
        (&["serve", "--device", "gpu", "--port", "0"], 2, "must be auto, cpu, cuda or cuda:N"),
        (&["serve", "--device", "cuda:99", "--port", "0"], 1, "no CUDA device 99"),
        (&["serve", "--device", "cpu", "--dtype", "fp8", "--port", "0"], 2, "dtype fp8"),
        (&["serve", "--device", "cpu", "--kv-cache-dtype", "fp8", "--port", "0"], 2, "kv_cache_dtype"),
        (&["serve", "--tls-cert", "cert.pem", "--port", "0"], 2, "tls_key"),
        (&["serve", "--tensor-parallel-size", "0", "--port", "0"], 2, "tensor_parallel_size is 0"),
        (&["serve", "--tensor-parallel-size", "99", "--device", "cuda", "--port", "0"], 1, "CUDA device"),
        (&["serve", "--tls-cert", "no.pem", "--tls-key", "no.key", "--port", "0"], 2, "no.pem"),
        (&["serve", "--config", bad.to_str().unwrap()], 2, "prot"),
        (&["serve", "--model", "./no/such/model", "--port", "0"], 1, "no such folder"),
        (&["serve", "--port", &port], 1, "--port"),
        (&["serve", "--host", "192.0.2.1", "--port", "0"], 1, "--host"),
        (&["score", "text", "--url", closed], 1, "`surprisal serve` starts one"),
        (&["score", "text", "--url", "localhost:8000"], 2, "http:// or https://"),
        (&["estimate", "no-such-file", "--url", closed], 1, "no-such-file"),
        (&["estimate", bad.to_str().unwrap(), "Cargo.toml"], 2, "stands alone"),
        (&["estimate", "src/main.rs", "--url", closed], 1, "`surprisal serve` starts one"),
        (&["estimate", "file", "--windows", "1"], 1, "documents"),
        (&["estimate", bad.to_str().unwrap()], 2, "prot"),
        (&["estimate", "../../configs/experiments/oracle.toml", "--windows", "3"], 2, "stands alone"),
        (&["estimate", "file", "--shard", "5/4"], 2, "shard is 5/4"),
        (&["estimate", "file", "--shard", "half"], 2, "such as 2/8"),
        (&["estimate", "../../configs/experiments/oracle.toml", "--shard", "1/2"], 1, "model is missing"),
        (&["report", "no-such-folder"], 1, "no-such-folder"),
        (&["compare", "one"], 2, "Usage"),
        (&["compare", "no-such-folder", "other"], 1, "no-such-folder"),
        (&["merge", "no-such-folder", "--out", "x"], 1, "no-such-folder"),
        (&["bench", "--url", closed], 1, "is a server running there?"),
        (&["bench", "--url", "https://host"], 2, "http://HOST"),
        (&["bench", "--url", closed, "--workload", "pears"], 2, "documents, pairs"),
        (&["bench", "--rate", "1", "--clients", "1"], 2, "--rate"),
        (&[], 2, "Usage"),
    ] {
        let output = run(dir.path(), args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(hint), "{args:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty(), "{args:?}: nothing on stdout");
    }
}
