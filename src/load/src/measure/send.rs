//! Sending one request, with retries after status 429, until it is answered or fails.

use std::time::{Duration, Instant};

use super::recorder::Failure;
use super::run::{Run, ScheduledRequest};
use crate::client::{
    CompleteResponse, Connection, ExchangeError, Target, expect_success, max_response_bytes, read_response, write_body,
};
use crate::error::Error;
use crate::workload::PairRequest;

/// Delay after status 429 without `Retry-After`, and after a failed connection attempt.
const DEFAULT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Maximum number of retries after status 429, for a request that must be answered.
const MAX_RETRIES: usize = 10;

/// Maximum length of an error response's body in a failure's example, in characters.
const MAX_EXAMPLE_CHARS: usize = 200;

/// Sends a request until it is answered or fails, and records the result, unless it belongs to the warm-up.
pub(super) async fn send_and_record(run: &Run, scheduled: ScheduledRequest, request: &PairRequest) {
    let measured = scheduled.is_measured();
    let answer = send(run, scheduled, request).await;
    let now = Instant::now();
    let mut recorder = run.recorder();
    match answer {
        Ok(answer) => {
            // Throughput includes requests of the warm-up that are answered in the measurement.
            if now >= run.warm_up_end && !run.is_over(now) && (measured || run.end.is_some()) {
                recorder.add_response(request, &answer, now - run.warm_up_end);
            }
            if measured {
                recorder.add_latency(request.class, now - scheduled.due);
                recorder.add_sample(scheduled.index, answer.logprobs);
            }
        }
        Err(failure) if measured => {
            recorder.add_failure(request.class, failure, (now - scheduled.due).max(run.options.timeout));
        }
        Err(_) => {}
    }
}

/// Sends a request until it is answered or fails. After status 429, waits as long as the server asks, and retries.
async fn send(run: &Run, scheduled: ScheduledRequest, request: &PairRequest) -> Result<CompleteResponse, Failure> {
    let dialect = run.target.endpoint.dialect();
    let body =
        write_body(dialect, request, &run.target.model).map_err(|error| Failure::new("not sent", error.to_string()))?;
    let limit = max_response_bytes(dialect, request);
    loop {
        let response = match run.post(dialect.path(), body.clone(), limit).await {
            Ok(response) => response,
            Err(error) => return Err(failed_exchange(error).await),
        };
        let text = || String::from_utf8_lossy(&response.body).chars().take(MAX_EXAMPLE_CHARS).collect::<String>();
        match response.status {
            200 => {
                let fingerprint = run.target.fingerprint.as_deref();
                return read_response(dialect, request, fingerprint, &response.body)
                    .map_err(|reason| Failure::new("bad answer", reason));
            }
            429 => {
                if scheduled.is_measured() {
                    run.recorder().refused += 1;
                }
                let wait = response.retry_after.unwrap_or(DEFAULT_RETRY_DELAY);
                if scheduled.due.elapsed() + wait > run.options.timeout {
                    return Err(Failure::gave_up("status 429 to the end", text()));
                }
                tokio::time::sleep(wait).await;
            }
            status => return Err(Failure::new(format!("status {status}"), text())),
        }
    }
}

/// Returns the failure of a request without a response. Waits first if the connection attempt failed.
async fn failed_exchange(error: ExchangeError) -> Failure {
    match error {
        ExchangeError::Connect(_) => {
            tokio::time::sleep(DEFAULT_RETRY_DELAY).await;
            Failure::new("no connection", error.to_string())
        }
        ExchangeError::TooLong(_) => Failure::new("bad answer", error.to_string()),
        ExchangeError::Broken(_) => Failure::new("broken connection", error.to_string()),
        ExchangeError::Timeout(_) => Failure::gave_up("timeout", error.to_string()),
    }
}

/// Sends one request that must be answered. Retries after status 429, up to [`MAX_RETRIES`] times.
pub(super) async fn send_alone(
    target: &Target,
    connection: &mut Connection,
    request: &PairRequest,
) -> Result<CompleteResponse, Error> {
    let dialect = target.endpoint.dialect();
    let url = target.endpoint.url(dialect.path());
    let invalid = |reason: String| Error::Answer { url: url.clone(), reason };
    let body = write_body(dialect, request, &target.model).map_err(|error| invalid(error.to_string()))?;
    let limit = max_response_bytes(dialect, request);
    let mut response = connection.post(dialect.path(), body.clone(), limit).await;
    for _ in 0..MAX_RETRIES {
        match &response {
            Ok(full) if full.status == 429 => {
                tokio::time::sleep(full.retry_after.unwrap_or(DEFAULT_RETRY_DELAY)).await;
                response = connection.post(dialect.path(), body.clone(), limit).await;
            }
            _ => break,
        }
    }
    let body = expect_success(&url, response)?.body;
    read_response(dialect, request, target.fingerprint.as_deref(), &body).map_err(invalid)
}
