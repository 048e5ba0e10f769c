//! The estimation client: corpus, plan, logprob sources, estimators, fits, report.
