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
    let same = run(dir.path(), &["compare", &path("sure"), &path("sure")]);
    assert!(stderr(&same).contains("report name is"), "{}", stderr(&same));
}
