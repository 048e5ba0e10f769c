//! Runs the commands that README, CONTRIBUTING and the book document, in order.
//!
//! Commands are in code blocks fenced as `sh`. Each must match an entry of `COMMANDS`, so a new command fails until it
//! is covered. The tests also reject broken links, undocumented problem types, and code blocks in a language that no
//! test reads.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use surprisal_estimator::Experiment;
use surprisal_tests::tiny::TinyLlama;

/// The beginnings of documented commands, and how each is covered. The first match counts.
const COMMANDS: &[(&str, Coverage)] = &[
    ("cargo ", Coverage::Ci),
    ("surprisal serve --model HuggingFaceTB/", elsewhere("tests/hub.rs", "[\"serve\", \"--model\"")),
    ("surprisal serve --model path/to/model.gguf", elsewhere("tests/engines.rs", ".gguf")),
    ("surprisal serve", Coverage::Serve),
    ("surprisal doctor --model HuggingFaceTB/", elsewhere("tests/hub.rs", "\"doctor\"")),
    ("surprisal bench --sweep", elsewhere("tests/cli/bench.rs", "\"--sweep\"")),
    ("surprisal bench --compare", elsewhere("tests/cli/bench.rs", "\"--compare\"")),
    ("surprisal ", Coverage::Run),
    ("curl ", Coverage::Run),
    ("echo ", Coverage::Run),
    ("lm_eval ", elsewhere("../../tests/clients/harness.py", "\"local-completions\"")),
    ("python3 bench/read_answers.py ", elsewhere("../../tests/clients/recipes.py", "bench/read_answers.py")),
    (".ci/run", elsewhere("../../.ci/run", "cargo test --workspace")),
    ("docker compose ", elsewhere("../../docker/check.sh", "compose.yaml")),
    ("kubectl apply ", elsewhere("../../docker/check.sh", "kubernetes")),
    ("cd path/to/llama && sha256sum ", elsewhere("../model/src/checkpoint/checksums.rs", "SHA256SUMS")),
    ("ray start ", Coverage::External),
    ("vllm serve ", Coverage::External),
];

/// The coverage of a command.
#[derive(Clone, Copy, Debug)]
enum Coverage {
    /// This test runs it against a server at the documented address; it must succeed.
    Run,
    /// This test runs it; it must start to serve.
    Serve,
    /// `.ci/run` runs it.
    Ci,
    /// The test in `file` runs an equivalent command; `file` contains `text`.
    Elsewhere { file: &'static str, text: &'static str },
    /// It belongs to another program and needs machines that are not available here.
    External,
}

const fn elsewhere(file: &'static str, text: &'static str) -> Coverage {
    Coverage::Elsewhere { file, text }
}

/// Returns the fenced blocks of a document in a language.
fn fenced_blocks(text: &str, language: &str) -> Vec<String> {
    let begin = format!("```{language}\n");
    text.split(&begin).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// Returns README, CONTRIBUTING and the book's pages: their paths from the repository's root, and their texts.
fn documents() -> Vec<(String, String)> {
    let read = |name: &str| std::fs::read_to_string(Path::new("../..").join(name)).unwrap();
    let pages = pages(&read("docs/src/SUMMARY.md"));
    let names = ["README.md".to_owned(), "CONTRIBUTING.md".to_owned()].into_iter().chain(pages);
    names.map(|name| (name.clone(), read(&name))).collect()
}

/// Returns the paths of the book's pages; the summary must list all of them.
fn pages(summary: &str) -> Vec<String> {
    let links = summary.lines().filter_map(|line| line.split_once("](")?.1.strip_suffix(')'));
    let pages: Vec<String> = links.map(|page| format!("docs/src/{page}")).collect();
    let files = std::fs::read_dir("../../docs/src").unwrap().map(|file| file.unwrap().path());
    let files = files.filter(|file| file.extension().is_some_and(|extension| extension == "md")).count();
    assert_eq!(files, pages.len() + 1, "the summary lists every page");
    pages
}

/// Returns a block's commands. An open quote or a trailing backslash continues a command on the next line.
fn commands(block: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    for line in block.lines() {
        match commands.last_mut() {
            Some(last) if last.matches('\'').count() % 2 == 1 || last.ends_with("\\\n") => *last += line,
            _ => commands.push(line.to_owned()),
        }
        *commands.last_mut().unwrap() += "\n";
    }
    commands
}

/// Returns the index of a command's entry in `COMMANDS`.
fn entry(command: &str) -> usize {
    let matching = COMMANDS.iter().position(|(beginning, _)| command.starts_with(beginning));
    matching.unwrap_or_else(|| panic!("no test runs {command}"))
}

/// Makes a folder with the files that the documents name: a model, two novels made of tokens from its vocabulary, and
/// the presets.
fn example_folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("path/to/llama");
    std::fs::create_dir_all(&model).unwrap();
    TinyLlama { layers: 1, max_positions: 2048, ..TinyLlama::default() }.write(&model, 1);
    let novel: String = (0..42_000).map(|i| format!("t{} ", 3 + (i * i / 7) % 500)).collect();
    std::fs::write(dir.path().join("novel.txt"), &novel).unwrap();
    std::fs::write(dir.path().join("war-and-peace.txt"), novel).unwrap();
    let experiments = dir.path().join("configs/experiments");
    std::fs::create_dir_all(&experiments).unwrap();
    std::fs::copy("../../configs/oracle.toml", dir.path().join("configs/oracle.toml")).unwrap();
    for preset in std::fs::read_dir("../../configs/experiments").unwrap().map(Result::unwrap) {
        std::fs::copy(preset.path(), experiments.join(preset.file_name())).unwrap();
    }
    dir
}

/// Returns a shell in the folder, with this program first in its path.
fn shell(dir: &Path, command: &str) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_surprisal")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).current_dir(dir).env("PATH", path).env("HOME", dir).env("XDG_CACHE_HOME", dir);
    shell
}

/// Runs a server's command on a free port, and calls `then` with its address.
fn serve(dir: &Path, command: &str, then: impl FnOnce(&str)) {
    let mut child = Serving(shell(dir, &format!("exec {command} --port 0")).stderr(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.find(|line| line.starts_with("serving")).expect(command);
    let url = line.split_whitespace().find_map(|word| word.strip_prefix("http://")).unwrap().trim_end_matches(',');
    let url = format!("http://{url}");
    std::thread::spawn(move || lines.for_each(drop));
    then(&url);
}

/// A server that stops when dropped, even if the test fails.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command that must succeed, and returns its stdout.
fn run(dir: &Path, command: &str, url: &str) -> String {
    let mut command = command.replace("http://127.0.0.1:8000", url).replace("http://127.0.0.1:8001", url);
    // An experiment file names its server itself.
    let names_server = ["http://", ".json", ".toml"].iter().any(|part| command.contains(part));
    let is_client =
        ["score", "estimate", "bench"].iter().any(|name| command.starts_with(&format!("surprisal {name} ")));
    if is_client && !names_server {
        command = format!("{command} --url {url}");
    }
    let output = shell(dir, &command).output().unwrap();
    let stderr_text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command}\n{stderr_text}{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout).unwrap()
}

/// Checks the documented JSON: requests succeed, and responses have the fields of real ones.
fn check_json(dir: &Path, url: &str, blocks: &[String], answer: &str) {
    let post = |body: &str| {
        run(dir, &format!("curl -s {url}/logprobs -H 'content-type: application/json' -d '{}'", body.trim_end()), url)
    };
    let answer: Value = serde_json::from_str(answer).unwrap();
    for block in blocks {
        let documented: Value = serde_json::from_str(block).unwrap();
        if documented.get("contexts").is_some() {
            assert!(post(block).contains("\"results\""), "{block}");
        } else if documented.get("results").is_some() {
            assert_eq!(shape(&documented), shape(&answer), "{block}");
        } else {
            let problem = post(r#"{"queries": [{"context": "t3", "target": [3, 515]}]}"#);
            let mut problem: Value = serde_json::from_str(&problem).unwrap();
            problem["detail"] = documented["detail"].clone();
            problem["message"] = documented["message"].clone();
            problem["error"]["message"] = documented["error"]["message"].clone();
            assert_eq!(documented, problem);
        }
    }
}

/// Returns the paths of a value's fields, without indices.
fn shape(value: &Value) -> BTreeSet<String> {
    let nested: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (format!(".{name}"), value)).collect(),
        Value::Array(values) => values.iter().map(|value| ("[]".to_owned(), value)).collect(),
        _ => return BTreeSet::from([String::new()]),
    };
    nested.iter().flat_map(|(name, value)| shape(value).into_iter().map(move |path| format!("{name}{path}"))).collect()
}

#[test]
fn every_documented_command_works_in_order() {
    let dir = example_folder();
    let ci = std::fs::read_to_string("../../.ci/run").unwrap();
    let documents = documents();
    let blocks = |language| documents.iter().flat_map(move |(_, text)| fenced_blocks(text, language));
    let (mut used, mut answer) = (BTreeSet::new(), String::new());
    serve(dir.path(), "surprisal serve --model path/to/llama", |url| {
        for command in blocks("sh").flat_map(|block| commands(&block)) {
            let bare = command.split(" # ").next().unwrap().trim_end();
            let entry = entry(&command);
            used.insert(entry);
            match COMMANDS[entry].1 {
                Coverage::Run => {
                    let output = run(dir.path(), bare, url);
                    assert!(!output.contains("urn:surprisal:problem"), "{command}\n{output}");
                    if bare.contains("/logprobs") && answer.is_empty() {
                        answer = output;
                    }
                }
                Coverage::Serve => serve(dir.path(), bare, |_| {}),
                Coverage::Ci => assert!(ci.contains(bare), "{bare}"),
                Coverage::Elsewhere { file, text } => {
                    assert!(std::fs::read_to_string(file).unwrap().contains(text), "{file} does not contain {text}");
                }
                Coverage::External => {}
            }
        }
        check_json(dir.path(), url, &blocks("json").collect::<Vec<_>>(), &answer);
    });
    let unused: Vec<&str> = (0..COMMANDS.len()).filter(|i| !used.contains(i)).map(|i| COMMANDS[i].0).collect();
    assert!(unused.is_empty(), "no document has the commands {unused:?}");
}

/// A fenced block is output (`text`), or a test reads it. No other block is code.
#[test]
fn a_test_reads_every_code_block() {
    for (name, text) in documents() {
        let mut fenced = false;
        for line in text.lines() {
            if let Some(language) = line.strip_prefix("```") {
                let read = match language {
                    "toml" => ["docs/src/machines.md", "docs/src/experiments.md"].contains(&name.as_str()),
                    "python" => ["README.md", "docs/src/api.md", "docs/src/recipes.md"].contains(&name.as_str()),
                    language => fenced || ["sh", "json", "text"].contains(&language),
                };
                assert!(read, "no test reads the {language} in {name}");
                fenced = !fenced;
            }
            assert!(fenced || !line.starts_with("    "), "{name}: fence this block and name its language: {line}");
        }
    }
}

#[test]
fn links_lead_to_files() {
    // CI checks anchors, too, with a link checker that a fresh machine may lack.
    let map = std::fs::read_to_string("../../ARCHITECTURE.md").unwrap();
    let mut links = 0;
    for (name, text) in documents().into_iter().chain([("ARCHITECTURE.md".to_owned(), map)]) {
        let folder = Path::new("../..").join(&name).parent().unwrap().to_owned();
        let targets = text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
        for target in targets.filter(|target| !target.contains("://")) {
            let file = target.split('#').next().unwrap();
            assert!(file.is_empty() || folder.join(file).is_file(), "{name} leads to {target}");
            links += 1;
        }
    }
    assert!(links >= 30, "{links}");
}

/// The server's problem types and the table in `troubleshooting.md` are the same.
#[test]
fn every_problem_type_is_documented() {
    let page = std::fs::read_to_string("../../docs/src/troubleshooting.md").unwrap();
    let table = page.split("## Problem types").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let documented: BTreeSet<&str> = rows.collect();
    let read = |name: &str| std::fs::read_to_string(format!("../server/src/problem/{name}.rs")).unwrap();
    let source = ["mod", "size"].map(read).concat();
    let calls = source.split("Failure::new(").skip(1).filter_map(|call| call.split('"').nth(1));
    let types: BTreeSet<&str> = calls.collect();
    assert_eq!(documented, types);
}

/// The book's parts of experiment files parse.
#[test]
fn documented_experiments_parse() {
    let corpus =
        "[corpus]\nkind = \"santa-fe\"\ndocuments = 2\nsymbols = 9\nexponent = 1.3\ndoubt = 0.1\n[measure]\nngram = 0";
    let read = |page: &str, least: usize, whole: &dyn Fn(&str) -> String| {
        let text = std::fs::read_to_string(format!("../../docs/src/{page}.md")).unwrap();
        let parts = fenced_blocks(&text, "toml");
        assert!(parts.len() >= least);
        for part in parts {
            Experiment::parse(&whole(&part), Path::new(page)).unwrap();
        }
    };
    read("machines", 2, &|model| format!("{model}{corpus}"));
    read("experiments", 4, &|part| {
        let model = "[model]\nurl = \"http://127.0.0.1:8000\"\n";
        match part {
            _ if part.starts_with("[corpus]") => format!("{model}{part}"),
            _ if part.starts_with("[model]") => format!("{part}{corpus}"),
            _ => format!("{model}[corpus]\nkind = \"text\"\nfiles = [\"a\"]\n{part}"),
        }
    });
}

/// The Python of README and `api.md` runs; `tests/clients/run` covers the recipes, which need pandas.
#[test]
fn the_python_examples_work() {
    let dir = example_folder();
    if shell(dir.path(), "python3 -c pass").output().map_or(true, |output| !output.status.success()) {
        return eprintln!("skipped: there is no python3");
    }
    let documents = documents();
    let read = documents.iter().filter(|(name, _)| name != "docs/src/recipes.md");
    let examples: Vec<String> = read.flat_map(|(_, text)| fenced_blocks(text, "python")).collect();
    assert_eq!(examples.len(), 2);
    serve(dir.path(), "surprisal serve --model path/to/llama", |url| {
        for example in examples {
            std::fs::write(dir.path().join("example.py"), example.replace("http://127.0.0.1:8000", url)).unwrap();
            let output = run(dir.path(), "python3 example.py", url);
            let logprobs: Vec<Vec<f64>> = serde_json::from_str(&output).unwrap();
            let [logprobs] = &logprobs[..] else { panic!("{output}") };
            assert!(!logprobs.is_empty() && logprobs.iter().all(|logprob| *logprob < 0.0), "{output}");
        }
    });
}
