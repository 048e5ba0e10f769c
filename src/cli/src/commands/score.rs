//! `surprisal score`: requests a text's log-probabilities, given a context, from a running server.

use surprisal_api::{Detail, LogprobsRequest, QueryResult, QuerySpec, Text};
use surprisal_estimator::{ApiKey, HttpOptions, HttpSource};

use crate::arguments::parse_server;
use crate::error::Error;
use crate::output::{print, print_json};
use crate::runtime::block_on;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Text to score
    text: String,
    /// Text that precedes the scored text; leave empty if nothing precedes it
    #[arg(long, default_value = "")]
    context: String,
    /// Server address
    #[arg(long, default_value = "http://127.0.0.1:8000", value_parser = parse_server)]
    url: String,
    /// API key, if the server requires one
    #[arg(long, env = "SURPRISAL_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Print the server's full response as JSON
    #[arg(long)]
    json: bool,
}

/// Sends the request and prints the response.
pub(crate) fn run(args: &Args) -> Result<(), Error> {
    block_on(async {
        let options = HttpOptions { api_key: args.api_key.clone().map(ApiKey::new), ..HttpOptions::default() };
        let source = HttpSource::connect(&args.url, options).await?;
        let query = QuerySpec::new(Text::from(args.context.as_str()), Text::from(args.text.as_str()));
        let request =
            LogprobsRequest { queries: Some(vec![query]), detail: Detail::Tokens, ..LogprobsRequest::default() };
        let answer = source.post_logprobs(&request).await?;
        if args.json {
            return print_json(&answer);
        }
        answer.results.iter().try_for_each(|result| print(format_tokens(result)))
    })
}

/// Returns one line per token, then the sum.
fn format_tokens(result: &QueryResult) -> String {
    let texts = result.texts.iter().flatten();
    let tokens = texts.zip(result.logprobs.iter().flatten());
    let lines: String = tokens.map(|(text, logprob)| format!("{logprob:>12.6}  {text:?}\n")).collect();
    let perplexity = (-result.sum / result.tokens as f64).exp();
    format!("{lines}{:>12.6}  nats in total, {} tokens, perplexity {perplexity:.3}\n", result.sum, result.tokens)
}
