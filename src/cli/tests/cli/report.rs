//! `surprisal estimate`, `report` and `compare`: reports without a server.

use std::path::Path;

use serde_json::Value;

use crate::support::{run, stderr};

#[test]
fn an_experiment_file_is_explained_and_runs_without_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let preset = "../../configs/experiments/oracle.toml";
    let explained = run(dir.path(), &["estimate", preset, "--explain"]);
    let text = String::from_utf8(explained.stdout).unwrap();
    assert!(text.contains("queries") && text.contains("the L2M paper's scripts"), "{text}");
    let out = dir.path().join("report");
    let estimated = run(dir.path(), &["estimate", preset, "--json", "--out", out.to_str().unwrap()]);
    assert!(estimated.status.success(), "{}", stderr(&estimated));
    let report: Value = serde_json::from_slice(&estimated.stdout).unwrap();
    assert!(report["rows"][0]["truth"].is_number());
    assert!(["report.html", "bipartite-4.svg", "bipartite.csv"].iter().all(|name| out.join(name).is_file()));
}

/// Reports are rewritten in another unit, and compared side by side.
#[test]
fn reports_are_rewritten_and_compared() {
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
    assert!(file("sure/report.html") == before, "the same report, byte for byte");
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
    assert!(table.contains("doubting: the same tokens as no doubt. Differences are paired by document"), "{table}");
    let paired = csv.lines().find(|line| line.contains("doubting,") && line.contains(",2,16,direct,")).unwrap();
    let cells: Vec<f64> = paired.split(',').skip(8).map(|cell| cell.parse().unwrap()).collect();
    let [difference, error, low, high] = cells[..] else { panic!("{paired}") };
    assert!((difference - (direct(&doubting) - direct(&sure))).abs() < 1e-9 && low < difference && difference < high);
    let unpaired = sure["rows"][2]["direct"]["error"].as_f64().unwrap();
    assert!(error < unpaired, "pairing reduces the error: {error}, {unpaired}");
    let same = run(dir.path(), &["compare", &path("sure"), &path("sure")]);
    assert!(stderr(&same).contains("report name is"), "{}", stderr(&same));
}

/// Reports on other documents are rejected, unless a flag accepts them; reports without an identity are named.
#[test]
fn reports_on_other_documents_are_not_compared_by_mistake() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    for (name, seed) in [("one", 1), ("two", 2)] {
        let text = format!(
            "seed = {seed}\n[corpus]\nkind = \"santa-fe\"\ndocuments = 12\nsymbols = 64\nexponent = 1.3\ndoubt = 0.1\n\
             [measure]\nsplits = [2, 4]\nresamples = 0\n"
        );
        std::fs::write(path(&format!("{name}.toml")), text).unwrap();
        let output = run(dir.path(), &["estimate", &path(&format!("{name}.toml")), "--out", &path(name)]);
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let compare = |names: &[&str], flags: &[&str]| {
        let reports: Vec<String> = names.iter().map(|name| format!("{name}={}", path(name))).collect();
        let both = path("both");
        let mut arguments = vec!["compare", "--out", &both];
        arguments.extend(reports.iter().map(String::as_str).chain(flags.iter().copied()));
        run(dir.path(), &arguments)
    };
    let rejected = compare(&["one", "two"], &[]);
    assert_eq!(rejected.status.code(), Some(1));
    let error = stderr(&rejected);
    assert!(
        error.contains("the reports one (12 samples of the Santa Fe oracle, 64 symbols, exponent 1.3, seed 1"),
        "{error}"
    );
    assert!(error.contains("are not comparable") && error.contains("--any-corpus"), "{error}");
    let table = |names: &[&str], flags: &[&str]| {
        let output = compare(names, flags);
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let accepted = table(&["one", "two"], &["--any-corpus"]);
    assert!(accepted.contains("two: other texts") && !accepted.contains("estimates minus"), "{accepted}");

    // A report of an earlier version, and one without documents.csv.
    let mut report: Value = serde_json::from_str(&std::fs::read_to_string(path("one/report.json")).unwrap()).unwrap();
    std::fs::create_dir(path("bare")).unwrap();
    std::fs::write(path("bare/report.json"), report.to_string()).unwrap();
    let bare = table(&["one", "bare"], &[]);
    assert!(bare.contains("without documents.csv") && bare.contains("estimates minus those of one"), "{bare}");
    report.as_object_mut().unwrap().remove("identity");
    std::fs::write(path("old.json"), report.to_string()).unwrap();
    let old = table(&["one", "old.json"], &[]);
    assert!(old.contains("because an earlier version wrote") && !old.contains("estimates minus"), "{old}");

    // documents.csv of another report.
    std::fs::copy(path("two/documents.csv"), path("bare/documents.csv")).unwrap();
    let stale = compare(&["one", "bare"], &[]);
    assert!(stderr(&stale).contains("bare/documents.csv: the mean of direct"), "{}", stderr(&stale));
}
