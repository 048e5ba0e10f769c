//! What README and CONTRIBUTING tell people to type is typed, in the order it stands there.
//!
//! Every line of a code block that is a command is listed below with what becomes of it, so a new one fails until it is, too.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use surprisal_estimator::Experiment;
use surprisal_tests::tiny::TinyLlama;

/// How a documented command begins, and what becomes of it.
const COMMANDS: &[(&str, Way)] = &[
    ("cargo ", Way::Ci),
    ("surprisal serve --model owner/name", Way::Elsewhere("tests/hub.rs")),
    ("surprisal serve --model path/to/model.gguf", Way::Elsewhere("tests/engines.rs")),
    ("surprisal serve", Way::Serve),
    ("surprisal doctor --model owner/name", Way::Elsewhere("tests/hub.rs")),
    ("surprisal bench --sweep", Way::Elsewhere("tests/cli.rs")),
    ("surprisal bench --compare", Way::Elsewhere("tests/cli.rs")),
    ("surprisal ", Way::Run),
    ("curl ", Way::Run),
    ("lm_eval ", Way::Elsewhere("../../tests/clients/run")),
    (".ci/run", Way::Elsewhere("../../.ci/run")),
];

/// What a test does with a command.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// It must succeed, against a server on the port the documents name.
    Run,
    /// It must come to serve.
    Serve,
    /// `.ci/run` runs it.
    Ci,
    /// It needs what is not here; that test does the same.
    Elsewhere(&'static str),
}

/// The code blocks of a document: what is indented by four; what is fenced has tests of its own.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks: Vec<String> = Vec::new();
    let (mut inside, mut fenced) = (false, false);
    for line in text.lines() {
        fenced ^= line.starts_with("```");
        match line.strip_prefix("    ").filter(|_| !fenced) {
            Some(code) if inside => *blocks.last_mut().unwrap() += &format!("{code}\n"),
            Some(code) => {
                blocks.push(format!("{code}\n"));
                inside = true;
            }
            None => inside = false,
        }
    }
    blocks
}

/// The book's pages, each of which is there.
fn pages(summary: &str) -> Vec<String> {
    let links = summary.lines().filter_map(|line| line.split_once("](")?.1.strip_suffix(')'));
    let pages: Vec<String> = links.map(|page| format!("docs/src/{page}")).collect();
    let files = std::fs::read_dir("../../docs/src").unwrap().count();
    assert_eq!(files, pages.len() + 1, "the summary lists every page");
    pages
}

/// A block's commands; a quote that is open goes on with the next line.
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

fn way(command: &str) -> Option<Way> {
    COMMANDS.iter().find(|(beginning, _)| command.starts_with(beginning)).map(|&(_, way)| way)
}

/// A folder with what the documents speak of: a model, and a novel in its words.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("path/to/llama");
    std::fs::create_dir_all(&model).unwrap();
    TinyLlama { layers: 1, max_positions: 2048, ..TinyLlama::default() }.write(&model, 1);
    let novel: String = (0..42_000).map(|i| format!("t{} ", 3 + (i * i / 7) % 500)).collect();
    std::fs::write(dir.path().join("novel.txt"), novel).unwrap();
    let experiments = dir.path().join("configs/experiments");
    std::fs::create_dir_all(&experiments).unwrap();
    std::fs::copy("../../configs/oracle.toml", dir.path().join("configs/oracle.toml")).unwrap();
    for preset in std::fs::read_dir("../../configs/experiments").unwrap().map(Result::unwrap) {
        std::fs::copy(preset.path(), experiments.join(preset.file_name())).unwrap();
    }
    dir
}

/// A shell in the folder, with our program before all others.
fn shell(dir: &Path, command: &str) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_surprisal")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).current_dir(dir).env("PATH", path).env("HOME", dir).env("XDG_CACHE_HOME", dir);
    shell
}

/// Serves as a command says, on a free port; what `then` does with its address.
fn serve(dir: &Path, command: &str, then: impl FnOnce(&str)) {
    let mut child = Serving(shell(dir, &format!("exec {command} --port 0")).stderr(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.find(|line| line.starts_with("serving")).expect(command);
    let url = line.split_whitespace().find_map(|word| word.strip_prefix("http://")).unwrap().trim_end_matches(',');
    let url = format!("http://{url}");
    std::thread::spawn(move || lines.for_each(drop));
    then(&url);
}

/// A server that is stopped when dropped, whatever became of the test.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a command says on stdout; it must succeed.
fn run(dir: &Path, command: &str, url: &str) -> String {
    let mut here = command.replace("http://127.0.0.1:8000", url);
    // An experiment file names its model itself.
    let alone = ["http://", ".json", ".toml"].iter().any(|part| command.contains(part));
    if command.starts_with("surprisal ") && !alone {
        here = match command.split(' ').nth(1) {
            Some("score" | "estimate" | "bench") => format!("{here} --url {url}"),
            _ => here,
        };
    }
    let output = shell(dir, &here).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{here}\n{told}{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout).unwrap()
}

/// Posts a documented request, and checks that a documented answer has no field that the real one lacks.
fn examples(dir: &Path, url: &str, blocks: &[String], answer: &str) {
    let is = |beginning: &'static str| blocks.iter().filter(move |block| block.starts_with(beginning));
    let requests: Vec<&String> = is("{\"contexts\"").chain(is("{\"queries\"")).collect();
    assert!(!requests.is_empty());
    for request in requests {
        serde_json::from_str::<Value>(request).unwrap();
        let post = format!("curl -s {url}/logprobs -H 'content-type: application/json' -d '{}'", request.trim_end());
        assert!(run(dir, &post, url).contains("\"results\""), "{request}");
    }
    let fields =
        is("{\"model\"").flat_map(|block| block.split('"').skip(1).step_by(2)).filter(|word| !word.contains('.'));
    let fields: Vec<&str> = fields.collect();
    assert!(fields.contains(&"cached_tokens"));
    for field in fields {
        assert!(answer.contains(&format!("\"{field}\"")), "{field}: {answer}");
    }
}

#[test]
fn every_documented_command_works_in_order() {
    let dir = folder();
    let read = |name: &str| std::fs::read_to_string(Path::new("../..").join(name)).unwrap();
    let ci = read(".ci/run");
    let pages = pages(&read("docs/src/SUMMARY.md"));
    let documents = ["README.md".to_owned(), "CONTRIBUTING.md".to_owned()].into_iter().chain(pages);
    let blocks: Vec<String> = documents.flat_map(|name| blocks(&read(&name))).collect();
    let (mut ran, mut served, mut answer) = (0, 0, String::new());
    serve(dir.path(), "surprisal serve --model path/to/llama", |url| {
        for command in blocks.iter().flat_map(|block| commands(block)) {
            let bare = command.split(" # ").next().unwrap().trim_end();
            match way(&command) {
                Some(Way::Run) => {
                    let said = run(dir.path(), bare, url);
                    assert!(!said.contains("urn:surprisal:problem"), "{command}\n{said}");
                    ran += 1;
                    if bare.contains("/logprobs") && answer.is_empty() {
                        answer = said;
                    }
                }
                Some(Way::Serve) => serve(dir.path(), bare, |_| served += 1),
                Some(Way::Ci) => assert!(ci.contains(bare), "{bare}"),
                Some(Way::Elsewhere(test)) => assert!(Path::new(test).exists(), "{test}"),
                None => assert!(
                    !command.starts_with(|c: char| c.is_ascii_lowercase() || c == '.'),
                    "no test runs {command}"
                ),
            }
        }
        examples(dir.path(), url, &blocks, &answer);
    });
    assert!(ran >= 4 && served >= 2, "{ran} commands ran, {served} served");
}

/// Parts of experiment files that the book shows are read as such.
#[test]
fn documented_experiments_are_read() {
    let corpus =
        "[corpus]\nkind = \"santa-fe\"\ndocuments = 2\nsymbols = 9\nexponent = 1.3\ndoubt = 0.1\n[measure]\nngram = 0";
    let read = |page: &str, least: usize, whole: &dyn Fn(&str) -> String| {
        let text = std::fs::read_to_string(format!("../../docs/src/{page}.md")).unwrap();
        let parts: Vec<&str> = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
        assert!(parts.len() >= least);
        for part in parts {
            Experiment::parse(&whole(part), Path::new(page)).unwrap();
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

/// The Python that the book shows, where there is a Python.
#[test]
fn the_python_example_works() {
    let page = std::fs::read_to_string("../../docs/src/api.md").unwrap();
    let code = page.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let dir = folder();
    if shell(dir.path(), "python3 -c pass").output().map_or(true, |output| !output.status.success()) {
        return eprintln!("skipped: there is no python3");
    }
    serve(dir.path(), "surprisal serve --model path/to/llama", |url| {
        let code = code.replace("http://127.0.0.1:8000", url);
        std::fs::write(dir.path().join("example.py"), code).unwrap();
        let said = run(dir.path(), "python3 example.py", url);
        assert!(said.starts_with("[[-") && said.matches(", -").count() == 1, "{said}");
    });
}
