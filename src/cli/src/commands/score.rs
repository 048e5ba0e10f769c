//! `surprisal score`: requests a text's log-probabilities, given a context, from a running server.

use surprisal_api::{Detail, LogprobsRequest, QueryResult, QuerySpec, Text};
use surprisal_estimator::{ApiKey, HttpOptions, HttpSource};

use crate::arguments::parse_server;
use crate::error::Error;
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
            println!("{}", serde_json::to_string_pretty(&answer)?);
            return Ok(());
        }
        for result in &answer.results {
            print_tokens(result);
        }
        Ok(())
    })
}

/// Prints one line per token, then the sum.
fn print_tokens(result: &QueryResult) {
    let texts = result.texts.iter().flatten();
    for (text, logprob) in texts.zip(result.logprobs.iter().flatten()) {
        println!("{logprob:>12.6}  {text:?}");
    }
    let perplexity = (-result.sum / result.tokens as f64).exp();
    println!("{:>12.6}  nats in total, {} tokens, perplexity {perplexity:.3}", result.sum, result.tokens);
}
