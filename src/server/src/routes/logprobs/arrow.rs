//! The Arrow IPC response of `/logprobs`: one row per scored token, in the order of the request.

use std::collections::HashMap;
use std::sync::Arc;
use std::vec::IntoIter;

use arrow_array::{ArrayRef, BinaryArray, Float32Array, RecordBatch, StringArray, UInt32Array};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, Field, Schema};
use surprisal_api::{ARROW_STREAM, LogprobsResponse, QueryResult};
use surprisal_engine::Scores;

use super::plan::QueryPlan;
use super::result::result;
use crate::app::App;
use crate::limits::disposal::Disposed;
use crate::limits::turns::JobSize;
use crate::problem::{self, Failure};
use crate::routes::parts::Parts;

/// A response as record batches, with the columns `query` (index of the query or pair), `position` in the target,
/// `token` and `logprob`, and `text` or `bytes`, `rank`, `entropy` and `subset_logprob` if requested. The schema's
/// metadata has the model, the fingerprint and the usage. A large response has several batches.
pub(super) struct ArrowResponse {
    plan: Arc<QueryPlan>,
    items: Disposed<IntoIter<(usize, Scores)>>,
    /// Index of the next query.
    query: usize,
    metadata: HashMap<String, String>,
    /// `None` until the first batch, whose columns determine the schema.
    writer: Option<StreamWriter<Vec<u8>>>,
}

impl ArrowResponse {
    pub(super) fn new(
        envelope: &LogprobsResponse,
        plan: Arc<QueryPlan>,
        items: Vec<(usize, Scores)>,
    ) -> Result<Self, Failure> {
        let LogprobsResponse { model, fingerprint, usage, .. } = envelope;
        let usage = serde_json::to_string(usage).map_err(problem::serialization_failed)?;
        let metadata = [("model", model.clone()), ("fingerprint", fingerprint.clone()), ("usage", usage)];
        let metadata = metadata.map(|(name, value)| (name.to_owned(), value)).into();
        Ok(Self { plan, items: Disposed::new(items.into_iter()), query: 0, metadata, writer: None })
    }

    /// Writes a batch; returns the bytes of the stream so far that have not been returned.
    fn write_batch(&mut self, results: &[QueryResult]) -> Result<Vec<u8>, ArrowError> {
        let columns = columns(results, self.query);
        self.query += results.len();
        let fields: Vec<Field> =
            columns.iter().map(|(name, values)| Field::new(*name, values.data_type().clone(), false)).collect();
        let schema = Arc::new(Schema::new_with_metadata(fields, self.metadata.clone()));
        let arrays = columns.into_iter().map(|(_, values)| values).collect();
        let batch = RecordBatch::try_new(Arc::clone(&schema), arrays)?;
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => StreamWriter::try_new(Vec::new(), &schema)?,
        };
        writer.write(&batch)?;
        if self.items.as_slice().is_empty() {
            writer.finish()?;
        }
        let bytes = std::mem::take(writer.get_mut());
        self.writer = Some(writer);
        Ok(bytes)
    }
}

impl Parts for ArrowResponse {
    fn media(&self) -> &'static str {
        ARROW_STREAM
    }

    fn sizes(&self) -> impl Iterator<Item = JobSize> {
        self.items.as_slice().iter().map(|&(index, _)| self.plan.result_size(index))
    }

    fn write_next(&mut self, app: &App, count: usize, out: &mut Vec<u8>) -> Result<(), Failure> {
        let items = self.items.by_ref().take(count);
        let results: Vec<QueryResult> = items.map(|(index, scores)| result(app, &self.plan, index, scores)).collect();
        out.append(&mut self.write_batch(&results).map_err(problem::serialization_failed)?);
        Ok(())
    }
}

/// Returns the names and values of the columns; the first result is that of query `first`. A list that was not
/// requested has no column.
fn columns(results: &[QueryResult], first: usize) -> Vec<(&'static str, ArrayRef)> {
    let rows = || {
        let numbered = results.iter().enumerate();
        numbered.flat_map(move |(query, result)| (0..result.tokens).map(move |at| (first + query, at)))
    };
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
