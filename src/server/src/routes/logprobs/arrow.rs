//! The Arrow IPC response of `/logprobs`: one row per scored token, in the order of the request.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, Float32Array, RecordBatch, StringArray, UInt32Array};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, Field, Schema};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use surprisal_api::{ARROW_STREAM, LogprobsResponse, QueryResult};

use crate::problem::{self, Failure};

/// Writes the whole response, with the columns `query` (index of the query or pair), `position` in the target, `token`
/// and `logprob`, and `text` or `bytes`, `rank`, `entropy` and `subset_logprob` if requested. The schema's metadata has the model, the
/// fingerprint and the usage.
pub(super) fn write(response: &LogprobsResponse) -> Result<Response, Failure> {
    let bytes = encode(response).map_err(problem::serialization_failed)?;
    Ok(([(header::CONTENT_TYPE, ARROW_STREAM)], bytes).into_response())
}

fn encode(response: &LogprobsResponse) -> Result<Vec<u8>, ArrowError> {
    let columns = columns(&response.results);
    let fields: Vec<Field> =
        columns.iter().map(|(name, values)| Field::new(*name, values.data_type().clone(), false)).collect();
    let usage = serde_json::to_string(&response.usage).map_err(|error| ArrowError::JsonError(error.to_string()))?;
    let metadata = [("model", response.model.clone()), ("fingerprint", response.fingerprint.clone()), ("usage", usage)];
    let metadata: HashMap<String, String> = metadata.map(|(name, value)| (name.to_owned(), value)).into();
    let schema = Arc::new(Schema::new_with_metadata(fields, metadata));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns.into_iter().map(|(_, values)| values).collect())?;
    let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
    writer.write(&batch)?;
    writer.into_inner()
}

/// Returns the names and values of the columns. A list that was not requested has no column.
fn columns(results: &[QueryResult]) -> Vec<(&'static str, ArrayRef)> {
    let rows = || results.iter().enumerate().flat_map(|(query, result)| (0..result.tokens).map(move |at| (query, at)));
    let queries = UInt32Array::from_iter_values(rows().map(|(query, _)| query as u32));
    let positions = UInt32Array::from_iter_values(rows().map(|(_, position)| position as u32));
    let mut columns: Vec<(_, ArrayRef)> = vec![("query", Arc::new(queries)), ("position", Arc::new(positions))];
    columns.push(("token", integers(results, |result| result.token_ids.as_deref())));
    columns.push(("logprob", floats(results, |result| result.logprobs.as_deref())));
    if results.iter().all(|result| result.texts.is_some()) {
        let texts = results.iter().filter_map(|result| result.texts.as_deref()).flatten();
        columns.push(("text", Arc::new(StringArray::from_iter_values(texts))));
    }
    if results.iter().all(|result| result.bytes.is_some()) {
        let bytes = results.iter().filter_map(|result| result.bytes.as_deref()).flatten();
        columns.push(("bytes", Arc::new(BinaryArray::from_iter_values(bytes))));
    }
    if results.iter().all(|result| result.ranks.is_some()) {
        columns.push(("rank", integers(results, |result| result.ranks.as_deref())));
    }
    if results.iter().all(|result| result.entropies.is_some()) {
        columns.push(("entropy", floats(results, |result| result.entropies.as_deref())));
    }
    if results.iter().all(|result| result.subset_logprobs.is_some()) {
        columns.push(("subset_logprob", floats(results, |result| result.subset_logprobs.as_deref())));
    }
    columns
}

fn integers(results: &[QueryResult], list: impl Fn(&QueryResult) -> Option<&[u32]>) -> ArrayRef {
    Arc::new(UInt32Array::from_iter_values(results.iter().filter_map(list).flatten().copied()))
}

fn floats(results: &[QueryResult], list: impl Fn(&QueryResult) -> Option<&[f32]>) -> ArrayRef {
    Arc::new(Float32Array::from_iter_values(results.iter().filter_map(list).flatten().copied()))
}
