//! The answer of `/logprobs` as an Arrow IPC stream: a row a scored token, in the order asked.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float32Array, RecordBatch, UInt32Array};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, Field, Schema};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use surprisal_api::{ARROW_STREAM, LogprobsResponse, QueryResult};

use crate::problem::{self, Failure};

/// The whole answer: columns `query` (or pair), `position` in the target, `token` and `logprob`, and `rank`, `entropy` and
/// `subset_logprob` where they were asked for. The schema's metadata has the model, the fingerprint and what the request cost.
pub(super) fn answer(answer: &LogprobsResponse) -> Result<Response, Failure> {
    let bytes = encode(answer).map_err(problem::unwritable)?;
    Ok(([(header::CONTENT_TYPE, ARROW_STREAM)], bytes).into_response())
}

fn encode(answer: &LogprobsResponse) -> Result<Vec<u8>, ArrowError> {
    let columns = columns(&answer.results);
    let fields: Vec<Field> =
        columns.iter().map(|(name, values)| Field::new(*name, values.data_type().clone(), false)).collect();
    let usage = serde_json::to_string(&answer.usage).map_err(|error| ArrowError::JsonError(error.to_string()))?;
    let metadata = [("model", answer.model.clone()), ("fingerprint", answer.fingerprint.clone()), ("usage", usage)];
    let metadata: HashMap<String, String> = metadata.map(|(name, value)| (name.to_owned(), value)).into();
    let schema = Arc::new(Schema::new_with_metadata(fields, metadata));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns.into_iter().map(|(_, values)| values).collect())?;
    let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
    writer.write(&batch)?;
    writer.into_inner()
}

/// Names and values. Lists that were not asked for are in no result, and then there is no column.
fn columns(results: &[QueryResult]) -> Vec<(&'static str, ArrayRef)> {
    let rows = || results.iter().enumerate().flat_map(|(query, result)| (0..result.tokens).map(move |at| (query, at)));
    let queries = UInt32Array::from_iter_values(rows().map(|(query, _)| query as u32));
    let positions = UInt32Array::from_iter_values(rows().map(|(_, position)| position as u32));
    let mut columns: Vec<(_, ArrayRef)> = vec![("query", Arc::new(queries)), ("position", Arc::new(positions))];
    columns.push(("token", integers(results, |result| result.token_ids.as_deref())));
    columns.push(("logprob", reals(results, |result| result.logprobs.as_deref())));
    if results.iter().all(|result| result.ranks.is_some()) {
        columns.push(("rank", integers(results, |result| result.ranks.as_deref())));
    }
    if results.iter().all(|result| result.entropies.is_some()) {
        columns.push(("entropy", reals(results, |result| result.entropies.as_deref())));
    }
    if results.iter().all(|result| result.subset_logprobs.is_some()) {
        columns.push(("subset_logprob", reals(results, |result| result.subset_logprobs.as_deref())));
    }
    columns
}

fn integers(results: &[QueryResult], list: impl Fn(&QueryResult) -> Option<&[u32]>) -> ArrayRef {
    Arc::new(UInt32Array::from_iter_values(results.iter().filter_map(list).flatten().copied()))
}

fn reals(results: &[QueryResult], list: impl Fn(&QueryResult) -> Option<&[f32]>) -> ArrayRef {
    Arc::new(Float32Array::from_iter_values(results.iter().filter_map(list).flatten().copied()))
}
