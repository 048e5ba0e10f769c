//! Prints small experiments as JSON: documents, log-probabilities, entropies and estimates. `tests/estimator/check.py`
//! checks this output against an independent implementation of the formulas in NumPy and SciPy.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use surprisal_estimator::{
    Bootstrap, Comparison, CorpusIdentity, Correction, Design, DocumentTerms, DocumentWindow, EntropyBias,
    EntropyMethod, Error, Estimates, ExactSource, Fit, Gaussian, LogprobSource, NgramEntropy, Pairing, Plan,
    PlannedQuery, PointTerms, Process, Report, SantaFe, Spectrum, TokenTexts, TwoPoint, WindowSize, run,
    shuffle_tokens,
};

/// The number of shuffles for the baseline of two-point information.
const SHUFFLES: usize = 3;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut experiments = Vec::new();
    let [single, equal, unequal] = [vec![1; 40], vec![4; 10], vec![1, 3, 7, 2, 4, 6, 5, 3, 4, 5]];
    for (pairing, negatives, texts, method, n, weight) in [
        (Pairing::Same, 1, single, EntropyMethod::Grassberger, 2, 0.8),
        (Pairing::Crossed, 11, equal, EntropyMethod::ChaoShen, 1, 0.5),
        (Pairing::Same, 6, unequal, EntropyMethod::MillerMadow, 1, 0.8),
    ] {
        let (splits, ratios) = (vec![2, 4, 8, 16, 32], vec![2, 3, 4]);
        let additivity = if negatives > 1 { vec![4, 16] } else { Vec::new() };
        let design =
            Design { splits, ratios, window: 128, negatives, additivity, pairing, seed: 4, ..Design::default() };
        let texts = texts.into_iter().enumerate().flat_map(|(text, size)| vec![text; size]);
        experiments.push(experiment(Plan::of_texts(texts, design)?.with_sizes(sizes(40))?, method, n, weight).await?);
    }
    println!(
        "{}",
        json!({
            "experiments": experiments,
            "bootstrap": bootstrap(),
            "gaussian": gaussian()?,
            "counts": counts(),
            "paper_fits": paper_fits(),
            "comparison": comparison().await?,
        })
    );
    Ok(())
}

async fn experiment(plan: Plan, method: EntropyMethod, n: usize, weight: f64) -> Result<Value, Error> {
    let process = SantaFe::new(60, 1.4, 1e-3)?;
    let mut rng = ChaCha8Rng::seed_from_u64(17);
    let documents: Vec<Vec<u32>> = (0..plan.documents()).map(|_| process.sample(plan.window(), &mut rng)).collect();
    let texts = || documents.iter().map(Vec::as_slice);
    let ln_p = documents.iter().map(|window| process.log_probabilities(window)).collect::<Result<Vec<_>, _>>()?;
    let exact = process.clone();
    let source = ExactSource::new(process);
    let queries = plan.queries().iter().map(|query| query.score_query(&documents)).collect();
    let answers = source.logprobs(queries).await?;
    let correction = Correction { entropy: NgramEntropy::with_method(method, texts(), n)?, weight };
    let estimates = Estimates::new(&plan, &answers, Some(correction))?;
    let report = Report::new("fixture", source.model(), &estimates)
        .with_divergence(&estimates.divergence(&ln_p))
        .with_exact_divergence(|tokens| exact.divergence(tokens));

    let slices: Vec<&[u32]> = texts().collect();
    let two_point = TwoPoint::of(&slices, &[1, 2, 4, 8, 16, 32], method)?.with_baseline(&slices, SHUFFLES, 21)?;
    let mut entropies = Vec::new();
    for method in EntropyMethod::ALL {
        for n in 1..=3 {
            entropies.push(NgramEntropy::with_method(method, texts(), n)?);
        }
    }
    Ok(json!({
        "documents": documents,
        "partners": plan.partners(),
        "texts": plan.texts(),
        "pairing": plan.pairing(),
        "correction": { "n": n, "weight": weight, "method": method },
        "steps": plan.queries().iter().zip(&answers).map(step).collect::<Vec<_>>(),
        "rows": report.rows,
        "fits": report.fits,
        "laws": report.laws,
        "local_exponents": report.local_exponents,
        "context_curves": report.context_curves,
        "consistency": report.consistency,
        "convergence": report.convergence,
        "halves": report.halves,
        "nll": report.nll,
        "nll_bins": report.nll_bins,
        "entropy_rate": report.entropy_rate,
        "sizes": sizes(40).iter().map(|size| size_numbers(*size)).collect::<Vec<_>>(),
        "exponent": 1.4,
        "symbols": 60,
        "doubt": 1e-3,
        "divergence": report.divergence,
        "divergence_bins": report.divergence_bins,
        "entropies": entropies,
        "two_point": two_point,
        "shuffled": shuffled(&slices)?,
    }))
}

/// Describes a query and its answer.
fn step((query, logprobs): (&PlannedQuery, &Vec<f32>)) -> Value {
    let (kind, x, y, split, end) = match *query {
        PlannedQuery::Whole { document, end } => ("whole", document, document, 0, end),
        PlannedQuery::Crossed { x, y, split, end } => ("crossed", x, y, split, end),
        PlannedQuery::Marginal { document, split, end } => ("marginal", document, document, split, end),
        PlannedQuery::Joint { documents: [a, b], split, end } => ("joint", a, b, split, end),
        PlannedQuery::JointMarginal { documents: [a, b], split, end } => ("joint_marginal", a, b, split, end),
    };
    json!({ "kind": kind, "x": x, "y": y, "split": split, "end": end, "logprobs": logprobs })
}

/// Sizes that windows of tokens of varying length could have.
fn sizes(documents: usize) -> Vec<WindowSize> {
    let size = |document: usize| {
        let (tail_bytes, rest) = (200 + 37 * document % 90, 210 + 53 * document % 70);
        let [characters, tail_characters] = [tail_bytes + rest, tail_bytes].map(|bytes| bytes - document % 11);
        WindowSize { bytes: tail_bytes + rest, characters, tail_bytes, tail_characters }
    };
    (0..documents).map(size).collect()
}

fn size_numbers(WindowSize { bytes, characters, tail_bytes, tail_characters }: WindowSize) -> [usize; 4] {
    [bytes, characters, tail_bytes, tail_characters]
}

/// The shuffled texts of the baseline of two-point information.
fn shuffled(texts: &Vec<&[u32]>) -> Result<Vec<Vec<Vec<u32>>>, Error> {
    let mut shuffled = vec![Vec::new(); SHUFFLES];
    let mut seeds = ChaCha8Rng::seed_from_u64(21);
    for of_shuffle in &mut shuffled {
        shuffle_tokens(texts, seeds.random(), 512 << 20)?.for_each(&mut |text| of_shuffle.push(text.to_vec()))?;
    }
    Ok(shuffled)
}

/// Entropies of counts from 1 to 20,000, with their bias.
fn counts() -> Value {
    let counts: Vec<u64> = (1..400_u64).map(|rank| (20_000 / (rank * rank)).max(1)).collect();
    let spectrum: Spectrum = counts.iter().copied().collect();
    let bias = |method: EntropyMethod| json!({ "method": method, "bias": EntropyBias::of(method, &spectrum) });
    json!({ "counts": counts, "biases": EntropyMethod::ALL.map(bias) })
}

/// Fits with a bias by the L2M paper's loss, to laws with and without noise.
fn paper_fits() -> Value {
    let mut fits = Vec::new();
    for (amplitude, exponent, bias, noise) in [
        (0.6, -0.35, 0.0, 0.2),
        (2.2, -1.8, 0.1, 0.1),
        (1.0, -0.6, 0.05, 0.3),
        (1.3, 0.6, 0.8, 0.02),
        (1.0, -0.4, -0.02, 0.0),
    ] {
        let point = |power: i32| {
            let d = f64::from(1 << power);
            (d, (amplitude * d.powf(exponent) + bias) * (noise * (f64::from(power) * 2.3).sin()).exp())
        };
        let points: Vec<(f64, f64)> = (0..13).map(point).collect();
        fits.push(json!({ "points": points, "fit": Fit::paper(&points) }));
    }
    json!(fits)
}

/// Compares two models on the same documents, three from each text.
async fn comparison() -> Result<Value, Error> {
    let design = Design { splits: vec![4, 8, 16], window: 64, ..Design::default() };
    let plan = Plan::of_texts((0..24).map(|document| document / 3), design)?.with_sizes(sizes(24))?;
    let mut rng = ChaCha8Rng::seed_from_u64(23);
    let process = SantaFe::new(60, 1.4, 1e-3)?;
    let documents: Vec<Vec<u32>> = (0..plan.documents()).map(|_| process.sample(plan.window(), &mut rng)).collect();
    let mut reports = Vec::new();
    for (name, doubt) in [("sure", 1e-3), ("doubting", 0.2)] {
        let source = ExactSource::new(SantaFe::new(60, 1.4, doubt)?);
        let estimates = run(&source, &documents, &plan, None, |_| {}).await?;
        let mut report = Report::new(name, source.model(), &estimates);
        let [texts, tokens, windows] = ["t", "t", "w"].map(str::to_owned);
        report.identity = Some(CorpusIdentity { name: "Santa Fe".to_owned(), texts, tokens, windows });
        reports.push((name.to_owned(), report));
    }
    let describe = |terms: &DocumentTerms| {
        let point = |point: &PointTerms| {
            json!({
                "length": point.length,
                "conditional": point.conditional,
                "marginal": point.marginal,
                "crossed": point.crossed,
            })
        };
        let window = |window: &DocumentWindow| json!([window.surprisal, window.tail_surprisal]);
        json!({
            "texts": terms.texts,
            "points": terms.points.iter().map(point).collect::<Vec<_>>(),
            "windows": terms.windows.iter().map(window).collect::<Vec<_>>(),
        })
    };
    let terms: Vec<Value> = reports.iter().filter_map(|(_, report)| report.terms.as_ref()).map(describe).collect();
    let comparison = Comparison::new(reports)?;
    Ok(json!({
        "terms": terms,
        "differences": comparison.differences("doubting"),
        "exponents": comparison.exponent_differences("doubting"),
        "surprisals": comparison.surprisal_differences("doubting"),
        "sizes": sizes(24).iter().map(|size| size_numbers(*size)).collect::<Vec<_>>(),
    }))
}

fn bootstrap() -> Value {
    let row = |i: u32| vec![(f64::from(i) * 0.7).sin().exp(), 2.0 + (f64::from(i) * 1.3).cos()];
    let rows: Vec<Vec<f64>> = (0..50).map(row).collect();
    let bootstrap = Bootstrap::new(&rows, 999, 5);
    json!({
        "rows": rows,
        "resampled": bootstrap.resampled(),
        "mean": bootstrap.interval(0.95, |means| Some(means[0])),
        "quotient": bootstrap.interval(0.9, |means| Some(means[0] / means[1])),
    })
}

fn gaussian() -> Result<Value, Error> {
    let (length, exponent, strength) = (48, 0.6, 0.2);
    let process = Gaussian::new(length, exponent, strength)?;
    let values = process.sample(length, &mut ChaCha8Rng::seed_from_u64(9));
    let pairs = [(1, 1), (8, 8), (8, 16), (12, 36)];
    let known = |(m, n): (usize, usize)| {
        let marginal: f64 = process.logprobs(&[], &values[m..m + n])?.iter().sum();
        let conditional: f64 = process.logprobs(&values[..m], &values[m..m + n])?.iter().sum();
        let (truth, vclub) = (process.mutual_information(m, n), process.vclub_limit(m, n));
        Ok(json!({ "m": m, "n": n, "truth": truth, "vclub": vclub, "marginal": marginal, "conditional": conditional }))
    };
    Ok(json!({
        "exponent": exponent,
        "strength": strength,
        "values": values,
        "known": pairs.into_iter().map(known).collect::<Result<Vec<_>, Error>>()?,
        "two_point": (1..length).map(|d| process.two_point(d)).collect::<Vec<_>>(),
    }))
}
