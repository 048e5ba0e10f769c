//! Responses that are written part by part, from results that take less memory than the response.

use std::sync::Arc;
use std::vec::IntoIter;

use axum::Extension;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::gate::InFlight;
use super::pipe::PipeWriter;
use crate::app::App;
use crate::limits::admission::{Permit, ResponsePermit};
use crate::limits::disposal::{Bulky, Disposed};
use crate::limits::turns::JobSize;
use crate::problem::{self, Failure};

/// The approximate maximum size of a part with several items, and of a response that is written at once, in bytes.
pub(super) const PART_BYTES: usize = 64 * 1024;

/// A response as a list of items, which are written one after another.
pub(super) trait Parts: Send + 'static {
    /// Returns the media type of the response.
    fn media(&self) -> &'static str;

    /// Returns the sizes of the items that have not been written.
    fn sizes(&self) -> impl Iterator<Item = JobSize>;

    /// Writes the next items and the text around them.
    fn write_next(&mut self, app: &App, count: usize, out: &mut Vec<u8>) -> Result<(), Failure>;
}

/// A JSON response with a list of items, each of which is made when it is written.
pub(super) struct JsonList<T: Bulky, S, W> {
    /// JSON before the first item.
    head: Vec<u8>,
    items: Disposed<IntoIter<T>>,
    /// JSON after the last item.
    tail: Vec<u8>,
    size: S,
    make: W,
}

impl<T: Bulky, S, W> JsonList<T, S, W> {
    /// Creates a list of items between `head` and `tail`. `size` estimates the size of an item's JSON, and `make`
    /// returns the value to write.
    pub(super) fn new(head: Vec<u8>, items: Vec<T>, tail: Vec<u8>, size: S, make: W) -> Self {
        Self { head, items: Disposed::new(items.into_iter()), tail, size, make }
    }

    /// Creates a list that takes the place of the empty array `field` in the JSON of `envelope`.
    pub(super) fn inside(
        envelope: &impl Serialize,
        field: &str,
        items: Vec<T>,
        size: S,
        make: W,
    ) -> Result<Self, Failure> {
        let json = serde_json::to_string(envelope).map_err(problem::serialization_failed)?;
        // In a JSON string, a backslash precedes each quotation mark, so no string contains this.
        let start = json.find(&format!("\"{field}\":[]")).ok_or_else(problem::internal)?;
        let (head, tail) = json.split_at(start + field.len() + 4);
        Ok(Self::new(head.into(), items, tail.into(), size, make))
    }
}

impl<T, V, S, W> Parts for JsonList<T, S, W>
where
    T: Bulky,
    V: Serialize,
    S: Fn(&T) -> JobSize + Send + 'static,
    W: Fn(&App, T) -> V + Send + 'static,
{
    fn media(&self) -> &'static str {
        "application/json"
    }

    fn sizes(&self) -> impl Iterator<Item = JobSize> {
        self.items.as_slice().iter().map(&self.size)
    }

    fn write_next(&mut self, app: &App, count: usize, out: &mut Vec<u8>) -> Result<(), Failure> {
        for item in self.items.by_ref().take(count) {
            out.append(&mut self.head);
            serde_json::to_writer(&mut *out, &(self.make)(app, item)).map_err(problem::serialization_failed)?;
            // Only a comma comes before the next item.
            self.head.push(b',');
        }
        if self.items.as_slice().is_empty() {
            out.append(&mut self.tail);
        }
        Ok(())
    }
}

/// Returns the size of the job that writes all items; `None` if the response is too large to be written at once.
pub(super) fn whole_size(parts: &impl Parts) -> Option<JobSize> {
    let mut total = JobSize::default();
    for size in parts.sizes() {
        total = total + size;
        if total.bytes > PART_BYTES {
            return None;
        }
    }
    Some(total)
}

/// Writes all items. The permit counts the response until the socket has taken it.
pub(super) fn write_all(app: &App, mut parts: impl Parts, permit: Permit) -> Result<Response, Failure> {
    let mut bytes = Vec::new();
    let count = parts.sizes().count();
    parts.write_next(app, count, &mut bytes)?;
    Ok(([(header::CONTENT_TYPE, parts.media())], Extension(ResponsePermit::new(permit, bytes.capacity())), bytes)
        .into_response())
}

/// Writes the items in parts, each as soon as there is capacity for it.
pub(super) async fn send_all(
    app: App,
    in_flight: Arc<InFlight>,
    pipe: Arc<PipeWriter>,
    mut parts: impl Parts,
) -> Result<(), Failure> {
    while let Some((count, size)) = next_part(&parts) {
        let reservation = pipe.reserve(size.memory).await;
        let written = in_flight.offload(&app, size, move |app| {
            let mut bytes = Vec::new();
            parts.write_next(app, count, &mut bytes)?;
            Ok((parts, bytes))
        });
        let bytes;
        (parts, bytes) = written.await?;
        reservation.send(bytes);
    }
    Ok(())
}

/// Returns the number of items of the next part, at least one, and the part's size; `None` at the end.
fn next_part(parts: &impl Parts) -> Option<(usize, JobSize)> {
    let mut sizes = parts.sizes();
    let mut part = sizes.next()?;
    let mut count = 1;
    for size in sizes {
        if part.bytes + size.bytes > PART_BYTES {
            break;
        }
        part = part + size;
        count += 1;
    }
    Some((count, part))
}

#[cfg(test)]
mod tests {
    use surprisal_engine::Scores;

    use super::*;

    #[test]
    fn a_list_takes_the_place_of_an_empty_array() {
        let envelope = serde_json::json!({"name": "\"results\":[]", "results": [], "usage": 1});
        let size = |_: &(usize, Scores)| JobSize { bytes: 1, memory: 1 };
        let make = |_: &App, item: (usize, Scores)| item.0;
        let list = JsonList::inside(&envelope, "results", vec![(1, Scores::default())], size, make).unwrap();
        let [head, tail] = [&list.head, &list.tail].map(|bytes| String::from_utf8(bytes.clone()).unwrap());
        assert_eq!(format!("{head}{tail}"), envelope.to_string());
        assert!(head.ends_with(r#""results":["#) && tail.starts_with(']'), "{head} {tail}");
    }
}
