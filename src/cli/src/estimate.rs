//! `surprisal estimate`: an experiment file, or text files under a running server's model.

use std::path::{Path, PathBuf};

use surprisal_estimator::{Experiment, Part, Report};

use crate::block_on;
use crate::error::Error;
use crate::experiment::Flags;
use crate::progress::TokenBar;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// One experiment file (.toml), or text files (UTF-8)
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    flags: Flags,
    /// Print what would be asked and what that saves, and stop
    #[arg(long)]
    explain: bool,
    /// Folder for the report (HTML, JSON, and each chart as SVG and CSV), and for the model's answers as they come: started again,
    /// it goes on where it was
    #[arg(long, default_value = "surprisal-report")]
    out: PathBuf,
    /// Ask for one of several equal parts, such as 2/8, and keep its answers for `surprisal merge`; no report is written
    #[arg(long, value_parser = part, value_name = "I/N")]
    shard: Option<Part>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let experiment = experiment(args)?;
    // Before a server is asked, and before a plan is shown that cannot be carried out.
    experiment.check()?;
    let plan = experiment.plan(experiment.documents()?)?;
    args.files.iter().try_for_each(|path| filled(path))?;
    if args.explain {
        println!("{plan}");
        return Ok(());
    }
    let mut bar = TokenBar::new("scoring");
    if let Some(part) = args.shard {
        let progress = |progress| bar.update(progress);
        let folder = block_on(async { Ok(experiment.answer(&args.out, part, progress).await?) })?;
        drop(bar);
        eprintln!("answers are in {}", folder.display());
        return Ok(());
    }
    let report = block_on(async { Ok(experiment.conduct(Some(&args.out), |progress| bar.update(progress)).await?) })?;
    drop(bar);
    write(&report, &args.out)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.table());
    }
    Ok(())
}

/// There must be a file, with something in it.
fn filled(path: &Path) -> Result<(), Error> {
    let failed = |source| surprisal_estimator::Error::File { path: path.to_owned(), source };
    let about = std::fs::metadata(path).map_err(failed)?;
    if about.is_file() && about.len() == 0 {
        return Err(failed(std::io::Error::other("the file is empty")).into());
    }
    Ok(())
}

/// `2/8`.
fn part(text: &str) -> Result<Part, String> {
    let wrong = || format!("{text} is not the number of a part and how many there are, such as 2/8");
    let (number, of) = text.split_once('/').ok_or_else(wrong)?;
    let [number, of] = [number, of].map(|count| count.parse().map_err(|_| wrong()));
    Part::new(number?, of?).map_err(|error| error.to_string())
}

fn experiment(args: &Args) -> Result<Experiment, Error> {
    let is_experiment = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "toml");
    match &args.files[..] {
        [file] if is_experiment(file) && args.flags == Flags::default() => Ok(Experiment::read(file)?),
        files if files.iter().any(is_experiment) => Err(Error::Usage(
            "an experiment file stands alone: what it measures is in it, not in flags or other files".to_owned(),
        )),
        files => Ok(args.flags.experiment(files)),
    }
}

/// Writes report.html, report.json, and charts as SVG and CSV into a folder.
pub(crate) fn write(report: &Report, out: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(out)?;
    report.write_html(&out.join("report.html"))?;
    report.write_json(&out.join("report.json"))?;
    report.write_files(out)?;
    eprintln!("wrote {}", out.join("report.html").display());
    Ok(())
}
