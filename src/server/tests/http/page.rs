//! The dashboard in a real browser. Without a browser the tests are skipped, or fail if `SURPRISAL_TEST_BROWSER` is
//! set.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::Server;

/// Returns the command of a Chromium on this machine, if there is one.
fn browser() -> Option<&'static str> {
    let found = |name: &&str| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success());
    let browser = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"].into_iter().find(found);
    assert!(browser.is_some() || std::env::var_os("SURPRISAL_TEST_BROWSER").is_none(), "no Chromium found");
    browser
}

/// Opens the page for five seconds of the browser's virtual time. Returns the browser's output.
async fn open(browser: &'static str, profile: &Path, url: &str, options: &[&str]) -> String {
    let mut command = tokio::process::Command::new(browser);
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=5000",
        "--window-size=900,700",
    ]);
    command.arg(format!("--user-data-dir={}", profile.display())).args(options).arg(url);
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the texts of all elements whose opening tag begins with `kind`; they must have no child elements.
fn texts<'a>(page: &'a str, kind: &str) -> Vec<&'a str> {
    let after = page.split(kind).skip(1);
    after.filter_map(|rest| rest.split_once('>')?.1.split('<').next()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_shows_what_the_server_does() {
    let Some(browser) = browser() else {
        eprintln!("skipped: no Chromium found");
        return;
    };
    let (server, profile) = (Server::start().await, tempfile::tempdir().unwrap());
    server.post("/logprobs", &json!({"queries": [{"target": "abc"}]})).await;
    let page = open(browser, profile.path(), &server.url, &["--dump-dom"]).await;
    assert_eq!(texts(&page, "<p id=\"model\""), ["letters on test, letters-1"], "{page}");
    let (names, values) = (texts(&page, "<dt"), texts(&page, "<dd"));
    let tile = |name: &str| values[names.iter().position(|found| *found == name).unwrap()];
    // Two of eight blocks are held.
    assert_eq!((tile("queries running"), tile("KV cache in use, %")), ("0", "25"), "{page}");
    assert!(page.contains("points=\"0,"), "the curves are drawn: {page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_follows_the_preferred_color_scheme() {
    let Some(browser) = browser() else {
        eprintln!("skipped: no Chromium found");
        return;
    };
    let (server, profile) = (Server::start().await, tempfile::tempdir().unwrap());
    for (scheme, paper) in [(0, [0x14, 0x18, 0x1d]), (1, [0xff, 0xff, 0xff])] {
        let picture = profile.path().join("page.png");
        let options =
            [format!("--blink-settings=preferredColorScheme={scheme}"), format!("--screenshot={}", picture.display())];
        open(browser, profile.path(), &server.url, &[&options[0], &options[1]]).await;
        let file = std::io::BufReader::new(std::fs::File::open(&picture).unwrap());
        let mut reader = png::Decoder::new(file).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(pixels[..3], paper, "scheme {scheme}");
        assert!(pixels.chunks(3).any(|pixel| pixel != paper), "the page is not empty");
    }
}
