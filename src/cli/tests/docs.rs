//! What README, CONTRIBUTING and the book tell people to type is typed, in the order it stands there.
//!
//! Every line of a code block that is a command is listed below with what becomes of it, so a new one fails until it is, too. So does
//! a link that leads nowhere, and a code block in a language that no test reads.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use surprisal_estimator::Experiment;
use surprisal_tests::tiny::TinyLlama;

/// The beginnings of documented commands, and how each is covered.
const COMMANDS: &[(&str, Coverage)] = &[
    ("cargo ", Coverage::Ci),
    ("surprisal serve --model owner/name", Coverage::OtherTest("tests/hub.rs")),
    ("surprisal serve --model path/to/model.gguf", Coverage::OtherTest("tests/engines.rs")),
    ("surprisal serve", Coverage::Serve),
    ("surprisal doctor --model owner/name", Coverage::OtherTest("tests/hub.rs")),
    ("surprisal bench --sweep", Coverage::OtherTest("tests/cli/bench.rs")),
    ("surprisal bench --compare", Coverage::OtherTest("tests/cli/bench.rs")),
    ("surprisal ", Coverage::Run),
    ("curl ", Coverage::Run),
    ("echo ", Coverage::Run),
    ("lm_eval ", Coverage::OtherTest("../../tests/clients/run")),
    (".ci/run", Coverage::OtherTest("../../.ci/run")),
    ("docker compose ", Coverage::OtherTest("../../docker/check.sh")),
    ("kubectl apply ", Coverage::OtherTest("../../docker/check.sh")),
    ("ray start ", Coverage::External),
    ("vllm serve ", Coverage::External),
];

/// The coverage of a command.
#[derive(Clone, Copy, Debug)]
enum Coverage {
    /// It is run here, against a server at the documented address, and must succeed.
    Run,
    /// It is run here, and must start to serve.
    Serve,
    /// `.ci/run` runs it.
    Ci,
    /// It needs something that is not here; this test does the same.
    OtherTest(&'static str),
    /// It is another program's, and needs machines that are not here.
    External,
}

/// Returns the code blocks of a document that may hold commands: those indented by four, and those fenced as text.
fn command_blocks(text: &str) -> Vec<String> {
    let mut blocks: Vec<String> = Vec::new();
    let (mut inside, mut fence) = (false, None);
    for line in text.lines() {
        let code = match (line.strip_prefix("```"), fence) {
            (Some(language), None) => {
                fence = Some(language);
                None
            }
            (Some(_), Some(_)) => {
                fence = None;
                None
            }
            (None, Some("text")) => Some(line),
            (None, Some(_)) => None,
            (None, None) => line.strip_prefix("    "),
        };
        match code {
            Some(code) if inside => *blocks.last_mut().unwrap() += &format!("{code}\n"),
            Some(code) => blocks.push(format!("{code}\n")),
            None => {}
        }
        inside = code.is_some();
    }
    blocks
}

/// Returns the fenced blocks of a document in a language.
fn fenced_blocks(text: &str, language: &str) -> Vec<String> {
    let begin = format!("```{language}\n");
    text.split(&begin).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// README, CONTRIBUTING and the book's pages, by their paths from the repository's root, with what is in them.
fn documents() -> Vec<(String, String)> {
    let read = |name: &str| std::fs::read_to_string(Path::new("../..").join(name)).unwrap();
    let pages = pages(&read("docs/src/SUMMARY.md"));
    let names = ["README.md".to_owned(), "CONTRIBUTING.md".to_owned()].into_iter().chain(pages);
    names.map(|name| (name.clone(), read(&name))).collect()
}

/// The book's pages, of which the summary must list all.
fn pages(summary: &str) -> Vec<String> {
    let links = summary.lines().filter_map(|line| line.split_once("](")?.1.strip_suffix(')'));
    let pages: Vec<String> = links.map(|page| format!("docs/src/{page}")).collect();
    let files = std::fs::read_dir("../../docs/src").unwrap().map(|file| file.unwrap().path());
    let files = files.filter(|file| file.extension().is_some_and(|extension| extension == "md")).count();
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

fn coverage(command: &str) -> Option<Coverage> {
    COMMANDS.iter().find(|(beginning, _)| command.starts_with(beginning)).map(|&(_, coverage)| coverage)
}

/// A folder with the files that the documents name: a model, a novel in its words, and the presets.
fn example_folder() -> tempfile::TempDir {
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

/// A shell in the folder, with this program first in its path.
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

/// A server that is stopped when dropped, whatever became of the test.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command that must succeed, and returns its stdout.
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
    let stderr_text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{here}\n{stderr_text}{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout).unwrap()
}

/// Posts the documented requests, and checks that the documented answer has no field that the real one lacks.
fn check_examples(dir: &Path, url: &str, blocks: &[String], answer: &str) {
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
    let dir = example_folder();
    let ci = std::fs::read_to_string("../../.ci/run").unwrap();
    let blocks: Vec<String> = documents().iter().flat_map(|(_, text)| command_blocks(text)).collect();
    let (mut ran, mut served, mut answer) = (0, 0, String::new());
    serve(dir.path(), "surprisal serve --model path/to/llama", |url| {
        for command in blocks.iter().flat_map(|block| commands(block)) {
            let bare = command.split(" # ").next().unwrap().trim_end();
            match coverage(&command) {
                Some(Coverage::Run) => {
                    let said = run(dir.path(), bare, url);
                    assert!(!said.contains("urn:surprisal:problem"), "{command}\n{said}");
                    ran += 1;
                    if bare.contains("/logprobs") && answer.is_empty() {
                        answer = said;
                    }
                }
                Some(Coverage::Serve) => serve(dir.path(), bare, |_| served += 1),
                Some(Coverage::Ci) => assert!(ci.contains(bare), "{bare}"),
                Some(Coverage::OtherTest(test)) => assert!(Path::new(test).exists(), "{test}"),
                Some(Coverage::External) => {}
                None => assert!(
                    !command.starts_with(|c: char| c.is_ascii_lowercase() || c == '.'),
                    "no test runs {command}"
                ),
            }
        }
        check_examples(dir.path(), url, &blocks, &answer);
    });
    assert!(ran >= 4 && served >= 2, "{ran} commands ran, {served} served");
}

/// Fenced blocks are in languages that a test here reads: text above, TOML and Python below.
#[test]
fn no_code_block_is_left_out() {
    for (name, text) in documents() {
        let fences: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("```")).collect();
        for language in fences.into_iter().step_by(2) {
            let read = match language {
                "text" => true,
                "toml" => ["docs/src/machines.md", "docs/src/experiments.md"].contains(&name.as_str()),
                "python" => ["README.md", "docs/src/api.md"].contains(&name.as_str()),
                _ => false,
            };
            assert!(read, "no test reads the {language} in {name}");
        }
    }
}

/// Links within the repository, pictures among them, lead to what is there.
#[test]
fn no_link_is_broken() {
    let map = std::fs::read_to_string("../../ARCHITECTURE.md").unwrap();
    let mut links = 0;
    for (name, text) in documents().into_iter().chain([("ARCHITECTURE.md".to_owned(), map)]) {
        let folder = Path::new("../..").join(&name).parent().unwrap().to_owned();
        let targets = text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
        for target in targets.filter(|target| !target.contains("://")) {
            assert!(folder.join(target).is_file(), "{name} leads to {target}");
            links += 1;
        }
    }
    assert!(links >= 8, "{links}");
}

/// Parts of experiment files that the book shows are read as such.
#[test]
fn documented_experiments_are_read() {
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

/// The Python that the book shows, and README's line beneath the same function, where there is a Python.
#[test]
fn the_python_examples_work() {
    let read = |name: &str| std::fs::read_to_string(Path::new("../..").join(name)).unwrap();
    let (book, readme) =
        (fenced_blocks(&read("docs/src/api.md"), "python"), fenced_blocks(&read("README.md"), "python"));
    let ([book], [readme]) = (&book[..], &readme[..]) else { panic!("one example each") };
    let dir = example_folder();
    if shell(dir.path(), "python3 -c pass").output().map_or(true, |output| !output.status.success()) {
        return eprintln!("skipped: there is no python3");
    }
    serve(dir.path(), "surprisal serve --model path/to/llama", |url| {
        let code = format!("{book}print({})\n", readme.split("  #").next().unwrap());
        std::fs::write(dir.path().join("example.py"), code.replace("http://127.0.0.1:8000", url)).unwrap();
        let said = run(dir.path(), "python3 example.py", url);
        let logprobs: Vec<Vec<Vec<f64>>> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [[two], [four]] = [&logprobs[0][..], &logprobs[1][..]] else { panic!("{said}") };
        assert!(two.len() == 2 && !four.is_empty() && two.iter().chain(four).all(|logprob| *logprob < 0.0), "{said}");
    });
}
