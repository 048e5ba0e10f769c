"""Compares the Rust crate's estimates with a separate version of the formulas in NumPy, SciPy and statsmodels, from the same answers.

Reads the fixture (`cargo run -p surprisal-estimator --example fixture`) from standard input. Fails at the first number
that differs by more than 1e-9 (1e-6 for the laws), absolutely or, for numbers above 1, relatively.
"""

import json
import sys
from collections import Counter

import numpy as np
import statsmodels.api as sm
from scipy import linalg, optimize, special, stats

compared = 0


def same(name, ours, theirs, tolerance=1e-9):
    global compared
    ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
    assert ours.shape == theirs.shape, f"{name}: shape {ours.shape} in Python, {theirs.shape} in Rust"
    error = np.max(np.abs(ours - theirs) / np.maximum(1.0, np.abs(ours)), initial=0.0)
    assert error <= tolerance, f"{name}: {ours} in Python, {theirs} in Rust"
    compared += ours.size


def mean_and_error(values, groups=None):
    """Returns the mean and its cluster-robust standard error; `groups` has the cluster of each value."""
    if groups is None or len(set(groups)) == len(values):
        return np.mean(values), np.std(values, ddof=1) / np.sqrt(len(values))
    of_clusters = cluster_values(values, groups)
    value, error = of_clusters.mean(), of_clusters.std(ddof=1) / np.sqrt(len(of_clusters))
    if len(set(np.bincount(groups))) == 1:
        fit = sm.OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": groups})
        same("clustered error of statsmodels", (fit.params[0], fit.bse[0]), (value, error))
    return value, error


def cluster_values(values, groups):
    """Returns the mean plus each cluster's influence on it, with the correction of CR2 (Bell and McCaffrey, 2002)."""
    sizes = np.bincount(groups)
    count, mean = len(sizes), values.mean()
    sums = np.bincount(groups, weights=values) - sizes * mean
    influences = sums * count / len(values) * np.sqrt((1 - 1 / count) / (1 - sizes / len(values)))
    return mean + influences - influences.mean()


def freedom_of(groups):
    """Returns the effective number of clusters minus 1."""
    sizes = np.bincount(groups)
    return max(sizes.sum() ** 2 / (sizes**2).sum() - 1, 1)


def entropy(counts, method):
    """Returns the entropy of counts and its standard error, in nats."""
    c = np.array(counts, float)
    total = c.sum()
    if method == "grassberger":
        g = special.psi(c) + (-1.0) ** c / 2 * (special.psi((c + 1) / 2) - special.psi(c / 2))
        value = np.log(total) - (c * g).sum() / total
        square = (c / total * (g - np.log(total)) ** 2).sum()
        return value, np.sqrt(max(square - value**2, 0)) / np.sqrt(total)
    p = c / total
    plug_in = -(p * np.log(p)).sum()
    error = np.sqrt(max((p * np.log(p) ** 2).sum() - plug_in**2, 0)) / np.sqrt(total)
    if method == "plug-in":
        return plug_in, error
    if method == "miller-madow":
        return plug_in + (len(c) - 1) / (2 * total), error
    assert method == "chao-shen"
    q = (1 - min((c == 1).sum(), total - 1) / total) * p
    terms = -q * np.log(q) / (1 - (1 - q) ** total)
    value = terms.sum()
    return value, np.sqrt(max((terms**2 / p).sum() - value**2, 0)) / np.sqrt(total)


def ngrams(documents, n):
    return Counter(tuple(d[i : i + n]) for d in documents for i in range(len(d) - n + 1))


def thinned(counts, method, share):
    """Returns the expected entropy if each item is kept with probability `share`."""
    total = sum(counts) * share
    once = sum(c * share * (1 - share) ** (c - 1) for c in counts)
    distinct = sum(1 - (1 - share) ** c for c in counts)
    coverage = 1 - min(once, max(total - 1, 0)) / total
    k = np.arange(1, max(counts) + 1.0)
    if method == "grassberger":
        s = np.log(total) - special.psi(k) - (-1.0) ** k / 2 * (special.psi((k + 1) / 2) - special.psi(k / 2))
    elif method == "chao-shen":
        p = np.minimum(coverage * k / total, 1)
        with np.errstate(divide="ignore"):
            s = -coverage * np.log(p) / (1 - (1 - p) ** total)
    else:
        s = np.log(total / k)
    value = sum((stats.binom.pmf(k[:c], c, share) * k[:c] * s[:c]).sum() for c in counts) / total
    return value + ((distinct - 1) / (2 * total) if method == "miller-madow" else 0)


def check_bias(name, counts, method, bias, tolerance=1e-9):
    whole = entropy(counts, method)[0]
    half, quarter = thinned(counts, method, 0.5), thinned(counts, method, 0.25)
    same(f"{name}, halved", half - whole, bias["halved"], tolerance)
    ratio = (half - quarter) / (whole - half)
    assert (ratio > 1) == ("extrapolated" in bias), (name, ratio, bias)
    if ratio > 1:
        same(f"{name}, extrapolated", -(whole - half) / (ratio - 1), bias["extrapolated"], tolerance)
    same(f"{name}, coverage", 1 - counts.count(1) / sum(counts), bias["coverage"])
    methods = [entropy(counts, m)[0] for m in ("plug-in", "miller-madow", "grassberger", "chao-shen")]
    same(f"{name}, methods", (min(methods), max(methods)), bias["methods"])


def check_entropies(experiment):
    for e in experiment["entropies"]:
        counts = list(ngrams(experiment["documents"], e["n"]).values())
        same(f"entropy {e['method']} {e['n']}", entropy(counts, e["method"]), (e["nats"], e["error"]))
        assert (e["total"], e["distinct"]) == (sum(counts), len(counts))
        check_bias(f"bias {e['method']} {e['n']}", counts, e["method"], e["bias"])


def check_two_point(experiment):
    documents, two_point = experiment["documents"], experiment["two_point"]
    method = two_point["method"]
    single = entropy(list(ngrams(documents, 1).values()), method)
    values = []
    for point in two_point["points"]:
        d = point["distance"]
        pairs = Counter((text[i], text[i + d]) for text in documents for i in range(len(text) - d))
        joint = entropy(list(pairs.values()), method)
        values.append(2 * single[0] - joint[0])
        error = np.sqrt((2 * single[1]) ** 2 + joint[1] ** 2)
        same(f"two-point at {d}", (values[-1], error), (point["value"], point["error"]))
        check_bias(f"bias at {d}", list(pairs.values()), method, point["bias"])
        shuffles = []
        for texts in experiment["shuffled"]:
            assert sorted(sum(texts, [])) == sorted(sum(documents, []))
            assert [len(text) for text in texts] == [len(text) for text in documents]
            shuffled = Counter((text[i], text[i + d]) for text in texts for i in range(len(text) - d))
            shuffles.append(2 * single[0] - entropy(list(shuffled.values()), method)[0])
        mean, mean_error = mean_and_error(shuffles)
        baseline = point["baseline"]
        difference = baseline["difference"]
        same(
            f"baseline at {d}",
            (mean, mean_error, np.std(shuffles, ddof=1), values[-1] - mean, np.hypot(joint[1], mean_error)),
            [baseline[key] for key in ("value", "error", "spread")] + [difference["value"], difference["error"]],
        )
    distances = [point["distance"] for point in two_point["points"]]
    if "fit" in two_point:
        check_fit("two-point", distances, values, None, two_point["fit"])
    if "additive" in two_point:
        check_fit("two-point", distances, values, None, two_point["additive"], lowest=0.0)
    if "paper" in two_point:
        check_paper_fit("two-point", distances, values, two_point["paper"])
    differences = [point["baseline"]["difference"] for point in two_point["points"]]
    clear = [d["value"] >= 3 * d["error"] for d in differences]
    if "difference_fit" in two_point:
        fit = dict(two_point["difference_fit"])
        assert fit.pop("left_out", []) == [d for d, kept in zip(distances, clear) if not kept], fit
        kept = [(d, e["value"]) for d, e, ok in zip(distances, differences, clear) if ok]
        check_fit("difference", *zip(*kept), None, fit)
    else:
        assert sum(clear) < 2


def check_paper_fit(name, x, y, fit):
    """Checks a fit by the loss of LogLogBiasRegression: mean squared ln(y - c) - ln A - b ln x, 0 <= c < min y."""
    x, y = np.array(x, float), np.array(y, float)
    kept = y > 0
    x, y = x[kept], y[kept]

    def line(c):
        found = stats.linregress(np.log(x), np.log(y - c))
        residuals = np.log(y - c) - found.intercept - found.slope * np.log(x)
        return (residuals**2).mean(), found

    grid = np.concatenate([[0], special.expit(np.linspace(-25, 30, 2000)) * y.min()])
    losses = [line(c)[0] for c in grid]
    best = int(np.argmin(losses))
    c, free = grid[best], best > 1
    if free:
        t = lambda c: special.logit(c / y.min())
        low, high = t(grid[best - 1]), t(grid[min(best + 1, len(grid) - 1)])
        loss = lambda t: line(special.expit(t) * y.min())[0]
        c = special.expit(optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x)
        c *= y.min()
    else:
        c = 0.0
    found = line(c)[1]
    ours = (np.exp(found.intercept), found.slope, c)
    same(f"{name}, paper", ours, [fit[key] for key in ("amplitude", "exponent", "bias")], tolerance=1e-6)
    assert free == ("exponent_error" in fit), (name, fit)
    if free:
        slopes = np.stack([np.ones_like(x), np.log(x), 1 / (y - c)], axis=1)
        covariance = np.linalg.inv(slopes.T @ slopes) * line(c)[0] * len(x) / (len(x) - 3)
        errors = ours[0] * np.sqrt(covariance[0, 0]), np.sqrt(covariance[1, 1])
        same(f"{name}, paper's errors", errors, (fit["amplitude_error"], fit["exponent_error"]), tolerance=1e-6)
    # SciPy's BFGS from the scripts' start may stop elsewhere, but not lower.
    loss = lambda p: ((np.log(y - special.expit(p[2]) * y.min()) - p[0] - p[1] * np.log(x)) ** 2).mean()
    assert line(fit["bias"])[0] <= optimize.minimize(loss, (0, -0.4, 0)).fun * (1 + 1e-6), name


def check_fit(name, x, y, errors, fit, lowest=None):
    x, y = np.array(x, float), np.array(y, float)
    kept = y > 0
    assert [int(v) for v in fit.get("left_out", [])] == [int(v) for v in x[~kept]], name
    x, y = x[kept], y[kept]
    name = f"{name}, {fit['method']}"
    if fit["method"] == "least_squares":
        line = stats.linregress(np.log(x), np.log(y))
        amplitude = np.exp(line.intercept)
        if len(x) == 2:
            # A line through two points has no errors.
            assert "amplitude_error" not in fit and "exponent_error" not in fit, name
            same(name, (amplitude, line.slope), [fit[key] for key in ("amplitude", "exponent")])
            return
        ours = (amplitude, line.slope, amplitude * line.intercept_stderr, line.stderr)
    elif fit["method"] == "weighted":
        weights = y / np.array(errors)[kept]
        (slope, intercept), covariance = np.polyfit(np.log(x), np.log(y), 1, w=weights, cov="unscaled")
        amplitude = np.exp(intercept)
        ours = (amplitude, slope, amplitude * np.sqrt(covariance[1, 1]), np.sqrt(covariance[0, 0]))
    else:
        lowest = -y.max() if lowest is None else lowest
        best = additive(x, y, lowest)
        if best is None:
            # The best bias is at a bound, where the crate reports no errors: check only that the crate's bias is, too.
            assert "exponent_error" not in fit, name
            at_low = abs(fit["bias"] - lowest) < 1e-12
            assert at_low or abs(fit["bias"] - y.min()) < 1e-5 * y.min(), (name, fit, lowest, y.min())
            return
        (amplitude, slope, bias), covariance = best
        same(f"{name}, bias", bias, fit["bias"])
        ours = (amplitude, slope, np.sqrt(covariance[0, 0]), np.sqrt(covariance[1, 1]))
    same(name, ours, [fit[key] for key in ("amplitude", "exponent", "amplitude_error", "exponent_error")])


def additive(x, y, lowest):
    """Fits A x^b + c by least squares of (A x^b + c) / y - 1.

    Returns (A, b, c) and their covariance, or None if the minimum is at a bound of c.
    """
    centre = np.exp(np.mean(np.log(x)))
    u = x / centre

    def residuals(p):
        return (p[0] * u ** p[1] + p[2]) / y - 1

    def jacobian(p):
        power = u ** p[1]
        return np.stack([power / y, p[0] * np.log(u) * power / y, 1 / y], axis=1)

    best = None
    for exponent in (-1.5, -0.5, 0.3, 0.8, 1.5):
        for bias in (0.0, 0.5 * y.min()):
            start = [np.median(y) - bias, exponent, bias]
            bounds = ([0, -4, lowest], [np.inf, 4, y.min() * (1 - 1e-6)])
            found = optimize.least_squares(residuals, start, jacobian, bounds=bounds, xtol=1e-15, ftol=1e-15, gtol=1e-15)
            if best is None or found.cost < best.cost:
                best = found
    if best.x[2] - lowest < 1e-4 or y.min() - best.x[2] < 1e-4 * y.min():
        return None
    p = best.x
    for _ in range(20):
        j = jacobian(p)
        p = p - np.linalg.solve(j.T @ j, j.T @ residuals(p))
    j = jacobian(p)
    variance = (residuals(p) ** 2).sum() / (len(x) - 3)
    # Convert back to lengths in tokens: A = A' / centre^b.
    scale = centre ** -p[1]
    change = np.array([[scale, -np.log(centre) * p[0] * scale, 0], [0, 1, 0], [0, 0, 1]])
    covariance = change @ np.linalg.inv(j.T @ j) @ change.T * variance
    return (p[0] * scale, p[1], p[2]), covariance


def check_estimates(experiment):
    count, texts = len(experiment["documents"]), np.array(experiment["texts"])
    whole, marginal, crossed, joint = {}, {}, {}, {}
    for step in experiment["steps"]:
        logprobs = np.array(step["logprobs"])
        if step["kind"] == "whole":
            whole[step["x"]] = logprobs
        elif step["kind"] == "marginal":
            marginal[step["split"], step["y"]] = logprobs
        elif step["kind"].startswith("joint"):
            assert len(logprobs) == 2 * (step["end"] - step["split"])
            pair = joint.setdefault((step["end"], step["split"]), {}).setdefault((step["x"], step["y"]), {})
            pair[step["kind"]] = logprobs.sum()
        else:
            crossed.setdefault((step["split"], step["y"]), []).append((step["x"], logprobs))
    n, weight = experiment["correction"]["n"], experiment["correction"]["weight"]
    h, h_error = entropy(list(ngrams(experiment["documents"], n).values()), experiment["correction"]["method"])
    partners, points, contributions = experiment["partners"], {}, {}
    for index, row in enumerate(experiment["rows"]):
        split, length = row["split"], row["length"]
        assert length == row["ratio"] * split
        own = np.array([whole[i][split:length].sum() for i in range(count)])
        alone = np.array([marginal[split, i][: length - split].sum() for i in range(count)])
        head = np.array([marginal[split, i][:n].sum() for i in range(count)])
        contexts = [[(x, c[: length - split].sum()) for x, c in crossed[split, i]] for i in range(count)]
        others = np.array([np.mean([c for _, c in of_y]) for of_y in contexts])
        error = lambda values: mean_and_error(values, texts)
        unpaired_error = lambda marginal: mean_and_error(
            dyadic_values((own - marginal[partners])[:, None], texts, texts[partners][:, None])
        )
        paired, unpaired = error(own - alone), unpaired_error(alone)
        replaced = alone - head + weight * -h + (1 - weight) * head
        name = f"ratio {row['ratio']}, split {split}"
        is_same = experiment["pairing"] == "same"
        corrected = error(own - replaced) if is_same else unpaired_error(replaced)
        ours = {"direct": own - alone, "corrected": own - replaced, "vclub": own - others}
        weights = np.array([[c for _, c in of_y] for of_y in contexts])
        origins = np.array([[texts[x] for x, _ in of_y] for of_y in contexts])
        assert (origins != texts[:, None]).all()
        dyadic = lambda queries: dyadic_values(queries, texts, origins)
        vclub = dyadic(own[:, None] - weights)
        same(f"vCLUB, {name}", vclub.mean(), np.mean(own - others))
        curves = experiment["context_curves"]
        averaged = check_averaged(name, own, weights, row, curves[index] if curves else None, dyadic)
        ours |= {series: values for series, (values, _) in averaged.items()}
        queries = {series: values for series, (_, values) in averaged.items()} | {"vclub": own[:, None] - weights}
        contributions[row["ratio"], length] = {
            series: queries.get(series, values[:, None]) for series, values in ours.items()
        }
        for series, values in ours.items():
            means = dyadic(queries[series]) if series in queries else cluster_values(values, texts)
            points.setdefault((row["ratio"], series), []).append((length, values, means))
        if split == min(r["split"] for r in experiment["rows"]):
            corrected = corrected[0], np.hypot(corrected[1], h_error)
        for key, expected in (
            ("direct", paired if is_same else unpaired),
            ("corrected", corrected),
            ("vclub", mean_and_error(vclub)),
        ):
            same(f"{key}, {name}", expected, (row[key]["value"], row[key]["error"]))
        errors = row["pairing_errors"]
        same(f"pairing, {name}", (paired[1], unpaired[1]), (errors["same"], errors["crossed"]))
    additivity = {}
    for (length, split), pairs in joint.items():
        of_pairs, firsts = [], []
        for (a, b), terms in sorted(pairs.items()):
            direct = sum(whole[i][split:length].sum() - marginal[split, i][: length - split].sum() for i in (a, b))
            of_pairs.append(terms["joint"] - terms["joint_marginal"] - direct)
            firsts.append(texts[a])
            assert texts[a] != texts[b]
        groups = np.unique(firsts, return_inverse=True)[1]
        additivity[length // split, length] = *mean_and_error(np.array(of_pairs), groups), freedom_of(groups)
    check_consistency(experiment, contributions, additivity, dyadic)
    positions = np.array([whole[i] for i in range(count)])
    for t, there in enumerate(experiment["nll"]):
        same(f"NLL at {t}", mean_and_error(-positions[:, t], texts), (there["value"], there["error"]))
    check_bins(-positions, texts, experiment["nll_bins"])
    check_entropy_rate(-positions, experiment["sizes"], texts, experiment["entropy_rate"])
    weights = np.arange(1, experiment["symbols"] + 1) ** -experiment["exponent"]
    # The process draws symbols by Zipf's law, and flips a coin once for each distinct symbol.
    symbols = [np.array(document) // 2 for document in experiment["documents"]]
    p = weights / weights.sum()
    ln_p = np.array([np.log(p[s]) - np.log(2) * np.array([s[t] not in s[:t] for t in range(len(s))]) for s in symbols])
    divergence = experiment["divergence"]
    ours = mean_and_error((ln_p - positions).sum(axis=1), texts)
    same("KL", ours, (divergence["value"], divergence["error"]))
    check_bins(ln_p - positions, texts, experiment["divergence_bins"])
    # The exact divergence at each position: the oracle loses -ln(1 - doubt) if the symbol was seen before.
    seen = np.array([(p * (1 - (1 - p) ** t)).sum() for t in range(positions.shape[1])])
    exact = -np.log1p(-experiment["doubt"]) * seen
    for bin in experiment["divergence_bins"]:
        same(f"exact KL from {bin['first']}", exact[bin["first"] - 1 : bin["last"]].mean(), bin["truth"])
    for fit in experiment["fits"]:
        rows = [row for row in experiment["rows"] if row["ratio"] == fit["ratio"] and fit["series"] in row]
        values, errors = zip(*((row[fit["series"]]["value"], row[fit["series"]]["error"]) for row in rows))
        check_fit(f"{fit['series']}, ratio {fit['ratio']}", [row["length"] for row in rows], values, errors, fit)
    kinds = {(fit["ratio"], fit["series"], fit["method"]) for fit in experiment["fits"]}
    assert len(kinds) == len(experiment["fits"]), kinds
    assert sum(series != "averaged_limit" for _, series, _ in kinds) == 27, kinds
    check_laws(experiment, points)
    check_convergence(experiment, points, h_error)
    check_halves(experiment, points)


def check_convergence(experiment, points, h_error):
    """Checks the estimates from the first texts, in an order that all series share and that is recovered from them."""
    smallest, found, orders = min(row["split"] for row in experiment["rows"]), 0, None
    rows = {(row["ratio"], row["length"]): row for row in experiment["rows"]}
    sizes = np.bincount(experiment["texts"])
    for of_series in experiment["convergence"]:
        ratio, length, series = of_series["ratio"], of_series["length"], of_series["series"]
        means = next(m for at, _, m in points[ratio, series] if at == length)
        row = rows[ratio, length]
        constant = h_error if series == "corrected" and of_series["split"] == smallest else 0.0
        if series == "averaged_limit":
            curve = next(c for c in experiment["context_curves"] if (c["ratio"], c["length"]) == (ratio, length))
            constant = curve["limit_error"]
        counts = [point["texts"] for point in of_series["points"]]
        assert counts == [2**k for k in range(1, 20) if 2**k < len(means)] + [len(means)]
        for point in of_series["points"]:
            n = point["texts"]
            if n == 2:
                # The order is random: take the pairs of texts that have this mean.
                sums = (means[:, None] + means[None, :]) / 2
                pairs = {(a, b) for a, b in np.argwhere(np.abs(sums - point["value"]) < 1e-9) if a < b}
                orders = pairs if orders is None else orders & pairs
                assert orders, (series, length)
                pair = next(iter(orders)) if len(orders) == 1 else None
                chosen = None if pair is None else means[list(pair)]
            else:
                chosen = means if n == len(means) else None
            if chosen is not None:
                value, error = mean_and_error(chosen)
                of_chosen = sizes[list(pair)] if n == 2 and n < len(means) else sizes
                t = stats.t.ppf(0.975, max(of_chosen.sum() ** 2 / (of_chosen**2).sum() - 1, 1))
                side = np.hypot(t * error, stats.norm.ppf(0.975) * constant)
                ours = (value, np.hypot(error, constant), value - side, value + side)
                name = f"convergence of {series}, ratio {ratio}, length {length}, {n} texts"
                same(name, ours, (point["value"], point["error"], *point["interval"]))
                found += n == 2
        expected = row[series] if experiment["pairing"] == "same" or series not in ("direct", "corrected") else None
        if expected:
            same("convergence's end", (expected["value"], expected["error"]), (point["value"], point["error"]))
    assert found > len(experiment["rows"]) and len(experiment["convergence"]) >= 3 * len(experiment["rows"])


def check_halves(experiment, points):
    texts = np.array(experiment["texts"])
    first_half = texts < len(set(texts)) // 2
    assert len(experiment["halves"]) == len({row["ratio"] for row in experiment["rows"]})
    for halves in experiment["halves"]:
        longest, values, _ = points[halves["ratio"], "direct"][-1]
        assert longest == halves["length"]
        first = cluster_values(values[first_half], texts[first_half])
        second = cluster_values(values[~first_half], texts[~first_half] - texts[first_half].max() - 1)
        variances = [half.var(ddof=1) / len(half) for half in (first, second)]
        freedoms = [freedom_of(texts[first_half]), freedom_of(texts[~first_half] - len(first))]
        df = sum(variances) ** 2 / sum(v**2 / f for v, f in zip(variances, freedoms))
        error, difference = np.sqrt(sum(variances)), second.mean() - first.mean()
        side = stats.t.ppf(0.975, df) * error
        ours = (difference, error, difference - side, difference + side, df, 2 * stats.t.sf(abs(difference) / error, df))
        if len(set(np.bincount(texts))) == 1:
            test = stats.ttest_ind(second, first, equal_var=False)
            same(f"Welch's test of SciPy at {longest}", (test.df, test.pvalue), ours[4:])
        theirs = [halves[key] for key in ("value", "error")] + [*halves["interval"], halves["freedom"], halves["p"]]
        # The quantiles of statrs have fewer digits for fractional degrees of freedom.
        same(f"halves at {longest}", ours, theirs, 1e-7)
        same(f"difference of halves at {longest}", ours[:2], theirs[:2])


def check_averaged(name, own, weights, row, curve, dyadic):
    """Checks the estimates with an averaged marginal; returns for each the contributions of documents and of queries.

    `weights[i, k]` is ln q(y_i | x_k). `dyadic` returns the clusters' contributions to the mean of such a matrix.
    """
    count = weights.shape[1]
    if count < 2:
        assert curve is None and not {"averaged", "averaged_limit", "info_nce"} & set(row), name
        return {}
    assert (curve["ratio"], curve["length"], curve["split"]) == (row["ratio"], row["length"], row["split"])
    powers = [2**j for j in range(int(np.ceil(np.log2(count))))]
    values, influences = {}, {}
    for k in powers + [count]:
        circle = (np.arange(count)[:, None] + np.arange(k)) % count
        values[k] = own - (special.logsumexp(weights[:, circle], axis=2) - np.log(k)).mean(axis=1)
        shares = np.zeros_like(weights)
        for subset in circle:
            shares[:, subset] += special.softmax(weights[:, subset], axis=1) / count
        # The influence of a single context is exact.
        influences[k] = 1 / count - shares if k > 1 else (weights.mean(axis=1, keepdims=True) - weights) / count
    of_queries = lambda values, influences: values[:, None] + count * influences
    assert [point["contexts"] for point in curve["points"]] == list(values), name
    for point in curve["points"]:
        k = point["contexts"]
        ours, theirs = mean_and_error(dyadic(of_queries(values[k], influences[k]))), point["estimate"]
        same(f"{point['contexts']} contexts, {name}", ours, (theirs["value"], theirs["error"]))
    found = {"averaged": (values[count], of_queries(values[count], influences[count]))}
    with_own = np.hstack([own[:, None], weights])
    info_nce = own - special.logsumexp(with_own, axis=1) + np.log(count + 1)
    shares = special.softmax(with_own, axis=1)[:, 1:]
    found["info_nce"] = info_nce, of_queries(info_nce, shares.mean(axis=1, keepdims=True) - shares)
    for key, (_, ours) in found.items():
        same(f"{key}, {name}", mean_and_error(dyadic(ours)), (row[key]["value"], row[key]["error"]))
    shares = special.softmax(weights, axis=1)
    effective = 1 / (shares**2).sum(axis=1).mean()
    same(f"effective contexts, {name}", effective, curve["effective"])
    # I_k = limit + a k^-b through three points, with b at most 1.
    powers = [k for k in values if np.log2(k) % 1 == 0][-3:]
    if len(powers) < 3:
        assert "averaged_limit" not in row and not curve["has_converged"], name
        return found
    three = np.array([values[k] for k in powers])
    means = three.mean(axis=1)
    before, after = means[0] - means[1], means[1] - means[2]
    rate = np.log2(before / after)
    power_law = lambda m: m[2] - (m[1] - m[2]) ** 2 / (m[0] - 2 * m[1] + m[2])
    one_over_k = lambda m: 2 * m[2] - m[1]
    limit = one_over_k if rate >= 1 else power_law
    model_error = max(abs(power_law(means) - one_over_k(means)), (means[2] - limit(means)) / 2)
    # Complex steps give the derivatives with respect to the means to machine precision.
    step = 1e-30
    slopes = [limit(means + 1j * step * np.eye(3)[j]).imag / step for j in range(3)]
    influence = limit(means) + slopes @ (three - means[:, None])
    converged = limit(means) <= np.log(count) and effective >= 3 and rate > -np.log2(0.9)
    assert curve["has_converged"] == ("averaged_limit" in row) == converged, name
    if rate > 0:
        same(f"rate, {name}", (min(rate, 1), model_error), (curve["rate"], curve["limit_error"]))
    if converged:
        # The contexts' influences on the limit, with the same derivatives.
        contexts = sum(slope * influences[k] for slope, k in zip(slopes, powers))
        ours = of_queries(influence, contexts)
        value, error = mean_and_error(dyadic(ours))
        theirs = row["averaged_limit"]
        same(f"limit, {name}", (value, np.hypot(error, model_error)), (theirs["value"], theirs["error"]))
        found["averaged_limit"] = influence, ours
    return found


def check_consistency(experiment, contributions, additivity, dyadic):
    texts = np.array(experiment["texts"])
    ratios, splits = [sorted({row[key] for row in experiment["rows"]}) for key in ("ratio", "split")]
    expected = set()
    for (ratio, length), ours in contributions.items():
        split = length // ratio
        upper = "averaged" if "averaged" in ours else "vclub"
        expected.add(("marginal", upper, (ratio, length), (ratio, length), "direct"))
        longer = [(r, r * split) for r in ratios[ratios.index(ratio) + 1 :][:1]]
        longer += [(ratio, ratio * s) for s in splits[splits.index(split) + 1 :][:1]]
        for to in longer:
            for series in ours.keys() & contributions.get(to, {}).keys() - {"averaged", "info_nce"}:
                expected.add(("data_processing", series, (ratio, length), to, series))
    checks = [c for c in experiment["consistency"] if c["test"] == "additivity"]
    assert {tuple(c["from"]) for c in checks} == additivity.keys(), checks
    for check in checks:
        value, error, freedom = additivity[tuple(check["from"])]
        same("additivity", (value, error), (check["difference"]["value"], check["difference"]["error"]))
        assert check["is_violated"] == (abs(value / error) > stats.t.ppf(1 - 0.025 / len(checks), freedom)), check
    rest = [c for c in experiment["consistency"] if c["test"] != "additivity"]
    found = {(c["test"], c["series"], tuple(c["from"]), tuple(c["to"])): c for c in rest}
    assert found.keys() == {key[:4] for key in expected} and len(found) == len(rest)
    count = Counter(key[0] for key in found)
    for test, series, source, to, other in expected:
        check = found[test, series, source, to]
        # One value for each query, or one for each document if there are no contexts.
        difference = contributions[to][series] - contributions[source][other]
        with_contexts = series not in ("direct", "corrected")
        value, error = mean_and_error(dyadic(difference)) if with_contexts else mean_and_error(difference[:, 0], texts)
        same(f"{test}, {series}, {source}", (value, error), (check["difference"]["value"], check["difference"]["error"]))
        assert check["is_violated"] == (value / error < stats.t.ppf(0.05 / count[test], freedom_of(texts))), check


def dyadic_values(queries, texts, origins):
    """Returns the clusters' contributions to the mean of `queries`, whose variance is robust to the clusters of y and x.

    `queries[i, k]` is the value of y_i and its context k, which is from the text `origins[i, k]`.
    """
    of_y = cluster_values(queries.mean(axis=1), texts)
    count, mean = len(of_y), queries.mean()
    if count == queries.size:
        return of_y
    own, deviations = np.repeat(texts, queries.shape[1]), (queries - mean).ravel()
    foreign = origins.ravel() != own
    of_x = np.bincount(origins.ravel(), weights=deviations * foreign, minlength=count) * count / queries.size
    sizes = np.bincount(texts)
    of_x = of_x * np.sqrt((1 - 1 / count) / (1 - sizes / len(texts)))
    influences = of_y - mean + of_x
    influences -= influences.mean()
    both = influences.var(ddof=1) / count
    pairs = Counter()
    for a, b, deviation in zip(own[foreign], origins.ravel()[foreign], deviations[foreign]):
        pairs[min(a, b), max(a, b)] += deviation
    dyadic = both - sum(total**2 for total in pairs.values()) / queries.size**2
    if dyadic <= of_y.var(ddof=1) / count:
        return of_y
    return mean + influences * np.sqrt(dyadic / both)


# Each law: the function, and starts for its parameters.
LAWS = {
    "power": (lambda l, a, b: a * l**b, [(1, 0.5), (1, 1.0), (1, 0.1)]),
    "power_with_bias": (lambda l, a, b, c: a * l**b + c, [(1, 0.5, 0), (-5, -0.5, 5), (0.1, 1.0, 1), (-5, -0.1, 5)]),
    "logarithmic": (lambda l, a, b: a + b * np.log(l), [(0, 1)]),
    "saturating": (
        lambda l, c, t, g: -c * np.expm1(-((l / t) ** g)),
        [(c, t, g) for c in (2, 10, 100) for t in (10, 100, 1000, 1e4) for g in (0.5, 1.0, 2.0)],
    ),
}


def check_laws(experiment, points):
    texts = np.array(experiment["texts"])
    # The scatter within texts gives no test of vCLUB with several contexts.
    expected = 6 if experiment["context_curves"] else 9
    assert sum(laws["series"] != "averaged_limit" for laws in experiment["laws"]) == expected
    assert len(experiment["local_exponents"]) >= 30
    for found in experiment["laws"]:
        lengths, values, means = zip(*points[found["ratio"], found["series"]])
        lengths, values, means = np.array(lengths, float), np.array(values), np.array(means)
        center, clusters = means.mean(axis=1), means.shape[1]
        if found["sampling"] == "clusters":
            covariance, freedom = np.cov(means) / clusters, int(freedom_of(texts))
        else:
            of_texts = np.stack([np.bincount(texts, weights=row) for row in values]) / np.bincount(texts)
            rest = values - of_texts[:, texts]
            freedom = rest.shape[1] - clusters
            covariance = rest @ rest.T / freedom / rest.shape[1]
        assert freedom == found["freedom"]
        for law in found["laws"]:
            check_law(found, law, lengths, center, covariance, freedom)
    for local in experiment["local_exponents"]:
        at = {length: means.mean() for length, _, means in points[local["ratio"], local["series"]]}
        first, second = local["from"], local["to"]
        ours = np.log(at[second] / at[first]) / np.log(second / first)
        same(f"local exponent {local}", ours, local["exponent"])


def check_law(found, law, lengths, center, covariance, freedom):
    function, starts = LAWS[law["law"]]
    white = linalg.inv(linalg.cholesky(covariance, lower=True))
    residuals = lambda p: white @ (function(lengths, *p) - center)
    name = f"{law['law']}, {found['series']}, ratio {found['ratio']}"
    theirs = np.array(law["parameters"])
    chi2 = (residuals(theirs) ** 2).sum()
    same(f"T² of {name}", chi2, law["chi2"], 1e-6)
    # No start leads to a better fit, within the bounds of the crate's search.
    bounds = {"saturating": ([-np.inf, lengths.min() / 8, 0.05], [np.inf, lengths.max() * 64, 4])}.get(law["law"])
    best = chi2
    for start in starts:
        try:
            fit = optimize.least_squares(
                residuals, start, x_scale="jac", xtol=1e-15, ftol=1e-15, gtol=1e-15, max_nfev=5000,
                **({"bounds": bounds} if bounds else {}),
            )
        except ValueError:
            continue
        best = min(best, 2 * fit.cost)
    assert chi2 <= best * (1 + 1e-6) + 1e-9, f"{name}: T² is {best} in Python, {chi2} in Rust"
    unknowns = len(theirs)
    k = len(lengths) - unknowns
    assert k == law["dof"]
    p = stats.f.sf(chi2 * (freedom - k + 1) / (freedom * k), k, freedom - k + 1)
    aicc = (freedom + 1) * np.log(1 + chi2 / freedom) + 2 * unknowns + 2 * unknowns * (unknowns + 1) / (k - 1)
    same(f"p and AICc of {name}", (p, aicc), (law["p"], law["aicc"]), 1e-6)
    if "errors" in law:
        # Complex steps give exact derivatives.
        steps = 1e-30j * np.eye(unknowns)
        jacobian = np.stack([residuals(theirs + step).imag / 1e-30 for step in steps], axis=1)
        inverse = linalg.inv(jacobian.T @ jacobian) * (1 + chi2 / freedom) * freedom / (freedom - k)
        same(f"errors of {name}", law["errors"] / np.sqrt(np.diag(inverse)), np.ones(unknowns), 1e-6)


def check_bins(surprisals, texts, bins):
    """Checks mean surprisals over ranges of positions, with errors over texts and intervals of Student's t."""
    assert bins[0]["first"] == 1 and bins[-1]["last"] == surprisals.shape[1]
    for bin in bins:
        means = surprisals[:, bin["first"] - 1 : bin["last"]].mean(axis=1)
        means = cluster_values(means, texts)
        value, error = mean_and_error(means)
        low, high = stats.t.interval(0.95, freedom_of(texts), value, error)
        name = f"positions {bin['first']} to {bin['last']}"
        same(name, (value, error, low, high), (bin["value"], bin["error"], *bin["interval"]))
    assert all(here["last"] + 1 == there["first"] for here, there in zip(bins, bins[1:]))


def ratio_and_error(above, below, groups):
    """Returns sum(above) / sum(below) and its cluster-robust error, as a weighted regression through the origin."""
    fit = sm.WLS(above, below, weights=1 / below).fit(cov_type="cluster", cov_kwds={"groups": groups})
    ratio = fit.params[0]
    value, error = mean_and_error(ratio + (above - ratio * below) / below.mean(), groups)
    if len(set(np.bincount(groups))) == 1:
        same("clustered error of a ratio", (ratio, fit.bse[0]), (value, error))
    return value, error


def check_entropy_rate(surprisals, sizes, texts, found):
    count, window = surprisals.shape
    clusters = len(set(texts))
    half = window // 2
    assert found["window"] == window
    bytes_, characters, tail_bytes, tail_characters = np.array(sizes, float).T
    value = lambda estimate: (estimate["value"], estimate["error"])
    tail, whole = surprisals[:, half:], surprisals
    for name, part, per in (
        ("tail", tail, {"character": tail_characters, "byte": tail_bytes}),
        ("whole", whole, {"character": characters, "byte": bytes_}),
    ):
        same(f"{name} per token", mean_and_error(part.mean(axis=1), texts), value(found[name]["token"]))
        for unit, size in per.items():
            same(f"{name} per {unit}", ratio_and_error(part.sum(axis=1), size, texts), value(found[name][unit]))
    for key, size in (("characters_per_token", tail_characters), ("bytes_per_token", tail_bytes)):
        same(key, mean_and_error(size / half, texts), value(found[key]))
    assert [block["length"] for block in found["blocks"]] == [2**k for k in range(int(np.log2(half)) + 1)]
    for block in found["blocks"]:
        n = block["length"]
        information = 2 * surprisals[:, :n].sum(axis=1) - surprisals[:, : 2 * n].sum(axis=1)
        same(f"I({n}; {n})", mean_and_error(information, texts), value(block))
    means = lambda values: np.stack([cluster_values(column, texts) for column in values.T], axis=1)
    octaves = np.stack([surprisals[:, window >> k : window >> (k - 1)].mean(axis=1) for k in (3, 2, 1)], axis=1)
    local = lambda rates: 1 + np.log2((rates[1] - rates[2]) / (rates[0] - rates[1]))
    if "local_exponent" in found:
        same("local exponent", jackknife(means(octaves), lambda rows: local(rows.mean(axis=0))), value(found["local_exponent"]))
    else:
        left_out = [np.delete(means(octaves), i, axis=0).mean(axis=0) for i in range(clusters)]
        assert any(np.any(np.diff(rates) >= 0) for rates in left_out), left_out
    # Half octaves after position 16 are enough for a fit; those after 32 are not.
    assert len(found["fits"]) == 1 and found["fits"][0]["first"] == 17, found["fits"]
    edges = np.round(window * 2.0 ** (-np.arange(7)[::-1] / 2)).astype(int)
    ranges = np.stack([surprisals[:, a:b].mean(axis=1) for a, b in zip(edges, edges[1:])], axis=1)
    totals = np.stack([tail.sum(axis=1), whole.sum(axis=1), tail_characters, tail_bytes], axis=1)
    of_texts = np.stack([np.bincount(texts, weights=column) / np.bincount(texts) for column in ranges.T], axis=1)
    rest = ranges - of_texts[texts]
    check_rate_fits(found["fits"][0], edges, means(ranges), rest, means(totals), window, int(freedom_of(texts)))


def jackknife(rows, statistic):
    left_out = np.array([statistic(np.delete(rows, i, axis=0)) for i in range(len(rows))])
    return statistic(rows), np.sqrt((len(rows) - 1) * np.var(left_out, axis=0))


def check_rate_fits(fits, edges, clusters, rest, totals, window, freedom):
    count, size = clusters.shape
    if freedom >= size + 8:
        covariance, sampling = (lambda rows: np.cov(rows.T) / (count - 1) * (len(rows) - 1) / len(rows)), "clusters"
        # The covariance of a leave-one-out set has the freedom of the full sample, as each resample's.
    else:
        freedom, sampling = len(rest) - count, "within"
        fixed = rest.T @ rest / freedom / len(rest)
        covariance = lambda rows: fixed
    assert (fits["freedom"], fits["sampling"], fits["ranges"]) == (freedom, sampling, size)
    centre = clusters.mean(axis=0)
    full = np.cov(clusters.T) / count if sampling == "clusters" else fixed
    for law in fits["laws"]:
        name = law["law"]
        solved, chi2 = solve_rate(name, edges, centre, full)
        free = 1 if name == "constant" else 3
        k = size - free
        p = stats.f.sf(chi2 * (freedom - k + 1) / (freedom * k), k, freedom - k + 1)
        aicc = (freedom + 1) * np.log1p(chi2 / freedom) + 2 * free + 2 * free * (free + 1) / (k - 1)
        same(f"rate test, {name}", (chi2, p, aicc, k), [law[key] for key in ("chi2", "p", "aicc", "dof")], 1e-6)

        def statistics(rows):
            ranges, sums = rows[:, :size].mean(axis=0), rows[:, size:].mean(axis=0)
            rate, _, exponent = solve_rate(name, edges, ranges, covariance(rows[:, :size]))[0]
            tail, whole, characters, bytes_ = sums
            half = window // 2
            values = [rate, rate * half / characters, rate * half / bytes_, tail / half - rate, whole - window * rate]
            return np.array(values + [exponent] * (name != "constant"))

        theirs = [law["rate"][unit] for unit in ("token", "character", "byte")] + [law["below_tail"], law["excess"]]
        theirs += [law["exponent"]] if name != "constant" else []
        values, errors = jackknife(np.hstack([clusters, totals]), statistics)
        scale = np.maximum(1, np.abs(errors))
        same(f"rates, {name}", values, [estimate["value"] for estimate in theirs], 2e-6)
        same(f"errors of rates, {name}", errors / scale, [e["error"] / s for e, s in zip(theirs, scale)], 2e-5)
        if name != "constant":
            same(f"amplitude, {name}", 1.0, law["amplitude"] / solved[1] if solved[1] else law["amplitude"] + 1, 1e-5)


def solve_rate(law, edges, means, covariance):
    """Fits a law by generalized least squares, with a rate and an amplitude of at least 0.

    Returns (rate, amplitude, exponent) and the sum of squares.
    """
    a, b = edges[:-1] + 0.5, edges[1:] + 0.5
    if law == "stretched":
        covariance, means = covariance / np.outer(means, means), np.log(means)
    white = linalg.inv(linalg.cholesky(covariance, lower=True))
    ones, target = white @ np.ones(len(means)), white @ means
    lowest = -np.inf if law == "stretched" else 0.0

    def linear(exponent):
        # Means of x^(β-1), and of its product with ln x, over each range.
        if law == "constant":
            columns, bounds = ones[:, None], ([lowest], [np.inf])
        else:
            if abs(exponent) < 1e-6:
                first, second = np.log(b / a), (np.log(b) ** 2 - np.log(a) ** 2) / 2
            else:
                power = lambda x: x**exponent / exponent
                first, second = power(b) - power(a), power(b) * (np.log(b) - 1 / exponent) - power(a) * (np.log(a) - 1 / exponent)
            decay = white @ ((second if law == "power_log" else first) / (b - a))
            scale = np.abs(decay).max()
            columns, bounds = np.stack([ones, decay / scale], axis=1), ([lowest, 0.0], [np.inf, np.inf])
        best, *_ = np.linalg.lstsq(columns, target, rcond=None)
        if np.any(best < bounds[0]):
            candidates = [optimize.lsq_linear(columns, target, bounds, tol=1e-15).x]
            for free in range(columns.shape[1]):
                one = np.zeros(columns.shape[1])
                one[free] = columns[:, free] @ target / (columns[:, free] @ columns[:, free])
                candidates += [one] if one[free] >= bounds[0][free] else []
            best = min(candidates, key=lambda x: ((columns @ x - target) ** 2).sum())
        squares = ((columns @ best - target) ** 2).sum()
        return squares, best[0], (best[1] / scale if law != "constant" else 0.0)

    if law == "constant":
        squares, rate, _ = linear(0.0)
        return (rate, 0.0, 0.0), squares
    grid = np.linspace(-2, 0.98, 300)
    nearest = int(np.argmin([linear(exponent)[0] for exponent in grid]))
    low, high = grid[max(nearest - 1, 0)], grid[min(nearest + 1, len(grid) - 1)]
    exponent = optimize.minimize_scalar(
        lambda e: linear(e)[0], bounds=(low, high), method="bounded", options={"xatol": 1e-12}
    ).x
    exponent = min((exponent, grid[nearest]), key=lambda e: linear(e)[0])
    squares, rate, amplitude = linear(exponent)
    return (np.exp(rate) if law == "stretched" else rate, amplitude, exponent), squares


def bca(value, resampled, left_out, level):
    resampled = np.sort(resampled)
    z0 = stats.norm.ppf(((resampled < value).sum() + (resampled <= value).sum()) / 2 / len(resampled))
    d = left_out.mean() - left_out
    a = (d**3).sum() / (6 * (d**2).sum() ** 1.5)
    count = len(left_out)
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    z = z0 + np.sqrt(count / (count - 1)) * stats.t.ppf(tails, count - 1)
    return np.quantile(resampled, stats.norm.cdf(z0 + z / (1 - a * z)))


def check_bootstrap(fixture):
    rows, resampled = np.array(fixture["rows"]), np.array(fixture["resampled"])
    left_out = np.array([np.delete(rows, i, axis=0).mean(axis=0) for i in range(len(rows))])
    same("BCa of a mean", bca(rows.mean(axis=0)[0], resampled[:, 0], left_out[:, 0], 0.95), fixture["mean"])
    quotient = lambda means: means[..., 0] / means[..., 1]
    ours = bca(quotient(rows.mean(axis=0)), quotient(resampled), quotient(left_out), 0.9)
    same("BCa of a quotient", ours, fixture["quotient"])
    # SciPy's implementation, which draws different resamples.
    theirs = stats.bootstrap((rows[:, 0],), np.mean, method="BCa", rng=np.random.default_rng(0)).confidence_interval
    same("BCa of SciPy", theirs, fixture["mean"], tolerance=0.05)


def check_comparison(fixture):
    first, other = fixture["terms"]
    texts = np.array(first["texts"])
    groups = np.unique(texts)
    quantile = stats.t.ppf(0.975, len(groups) - 1)

    def expect(name, estimate, value, error):
        interval = (value - quantile * error, value + quantile * error)
        same(name, (value, error, *interval), (estimate["value"], estimate["error"], *estimate["interval"]))

    def contributions(terms, series):
        negative = {"direct": "marginal", "vclub": "crossed"}[series]
        points = [np.array(point["conditional"]) - point[negative] for point in terms["points"]]
        return np.array(points)

    lengths = [point["length"] for point in first["points"]]
    for difference in fixture["differences"]:
        series, at = difference["series"], lengths.index(difference["length"])
        d = contributions(other, series)[at] - contributions(first, series)[at]
        means = np.array([d[texts == group].mean() for group in groups])
        expect(f"difference of {series}", difference["estimate"], *mean_and_error(means))
        # The sandwich estimate of a regression on a constant, as statsmodels computes it.
        scores = np.array([(d - d.mean())[texts == group].sum() for group in groups])
        sandwich = np.sqrt(len(groups) / (len(groups) - 1) * (scores**2).sum()) / len(d)
        same(f"clustered error of {series}", sandwich, difference["estimate"]["error"])
    slope = lambda values: np.polyfit(np.log(lengths), np.log(values.mean(axis=1)), 1)[0]
    for difference in fixture["exponents"]:
        a, b = (contributions(terms, difference["series"]) for terms in (first, other))
        left_out = np.array([slope(b[:, texts != g]) - slope(a[:, texts != g]) for g in groups])
        error = np.sqrt((len(groups) - 1) * np.var(left_out))
        expect(f"exponent of {difference['series']}", difference["estimate"], slope(b) - slope(a), error)
    sizes = np.array(fixture["sizes"], float)
    for difference in fixture["surprisals"]:
        at = difference["part"] == "tail"
        size = sizes[:, {"byte": 0, "character": 1}[difference["per"]] + 2 * at]
        influence = []
        for terms in (first, other):
            surprisal = np.array(terms["windows"])[:, int(at)]
            ratio = surprisal.sum() / size.sum()
            values = ratio + (surprisal - ratio * size) / size.mean()
            influence.append(np.array([values[texts == group].mean() for group in groups]))
        expect(f"surprisal per {difference['per']}", difference["estimate"], *mean_and_error((influence[1] - influence[0]) / np.log(2)))
    assert len(fixture["surprisals"]) == 4, fixture["surprisals"]
    assert len(fixture["differences"]) == 6 and len(fixture["exponents"]) == 2, fixture


def check_gaussian(fixture):
    values = np.array(fixture["values"])
    n = len(values)
    k = np.arange(1, n)
    partial = np.sqrt(1 - np.exp(-2 * fixture["strength"] * k ** (fixture["exponent"] - 2)))
    # The covariance with these partial autocorrelations. Each new correlation is the one predicted linearly from the
    # values in between, plus the partial autocorrelation times the residual variance.
    r = [1.0, partial[0]]
    for t in range(2, n):
        inner = linalg.toeplitz(r[: t - 1])
        forward = np.array(r[1:t])
        solved = linalg.solve(inner, forward[::-1], assume_a="pos")
        rest = 1 - forward[::-1] @ solved
        r.append(forward @ solved + partial[t - 1] * rest)
    covariance = linalg.toeplitz(r)
    density = lambda a, b: stats.multivariate_normal(np.zeros(b - a), covariance[a:b, a:b]).logpdf(values[a:b])
    for known in fixture["known"]:
        m, size = known["m"], known["m"] + known["n"]
        x, y, both = covariance[:m, :m], covariance[m:size, m:size], covariance[:size, :size]
        ln_det = lambda matrix: np.linalg.slogdet(matrix)[1]
        truth = (ln_det(x) + ln_det(y) - ln_det(both)) / 2
        given = y - both[m:, :m] @ linalg.solve(x, both[:m, m:])
        vclub = np.trace(linalg.solve(given, y)) - known["n"]
        marginal, conditional = density(m, size), density(0, size) - density(0, m)
        theirs = [known[key] for key in ("truth", "vclub", "marginal", "conditional")]
        same(f"Gaussian {m}, {size}", (truth, vclub, marginal, conditional), theirs)
    same("Gaussian two-point", -0.5 * np.log(1 - np.array(r[1:]) ** 2), fixture["two_point"])


fixture = json.load(sys.stdin)
for experiment in fixture["experiments"]:
    check_entropies(experiment)
    check_two_point(experiment)
    check_estimates(experiment)
check_bootstrap(fixture["bootstrap"])
check_gaussian(fixture["gaussian"])
check_comparison(fixture["comparison"])
for case in fixture["counts"]["biases"]:
    # Counts above 4096 are thinned to second order.
    check_bias(f"bias, {case['method']}", fixture["counts"]["counts"], case["method"], case["bias"], tolerance=1e-6)
for index, case in enumerate(fixture["paper_fits"]):
    check_paper_fit(f"fit {index}", *zip(*case["points"]), case["fit"])
print(f"{compared} numbers agree to 1e-9, those of laws to 1e-6")
