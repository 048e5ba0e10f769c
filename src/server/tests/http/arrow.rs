//! Responses as Arrow IPC streams, with numbers that are bit-identical to those in JSON.

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, UInt32Type};
use arrow_ipc::reader::StreamReader;
use reqwest::Response;
use serde_json::{Value, json};
use surprisal_api::{LogprobsResponse, Usage};

use crate::support::{FAILS, Reply, Server};

const ARROW: &str = "application/vnd.apache.arrow.stream";

async fn ask(server: &Server, body: &Value) -> Response {
    let request = server.client.post(format!("{}/logprobs", server.url)).json(body);
    request.header("accept", ARROW).send().await.unwrap()
}

fn integers(batch: &RecordBatch, name: &str) -> Vec<u32> {
    batch.column_by_name(name).unwrap().as_primitive::<UInt32Type>().values().to_vec()
}

fn bits(batch: &RecordBatch, name: &str) -> Vec<u32> {
    let column = batch.column_by_name(name).unwrap().as_primitive::<Float32Type>();
    column.values().iter().map(|value| value.to_bits()).collect()
}

#[tokio::test]
async fn columns_match_the_json_response() {
    let server = Server::start().await;
    let body = json!({"contexts": ["ab", "c"], "targets": ["x", "yz", [1, 2]], "rank": true, "entropy": true, "subset": [1], "detail": "tokens"});
    let whole: LogprobsResponse = serde_json::from_str(&server.post("/logprobs", &body).await.text).unwrap();
    let answer = ask(&server, &body).await;
    assert_eq!(answer.headers()["content-type"], ARROW);
    let bytes = answer.bytes().await.unwrap();
    let mut reader = StreamReader::try_new(bytes.as_ref(), None).unwrap();
    let metadata = reader.schema().metadata().clone();
    assert_eq!((&metadata["model"], &metadata["fingerprint"]), (&whole.model, &whole.fingerprint));
    assert_eq!(serde_json::from_str::<Usage>(&metadata["usage"]).unwrap(), whole.usage);
    let batch = reader.next().unwrap().unwrap();
    assert!(reader.next().is_none());

    let mut rows =
        whole.results.iter().enumerate().flat_map(|(query, result)| (0..result.tokens).map(move |at| (query, at)));
    let (queries, positions) = (integers(&batch, "query"), integers(&batch, "position"));
    assert_eq!(queries.len(), 10);
    assert!(queries.iter().zip(&positions).all(|(&q, &p)| rows.next() == Some((q as usize, p as usize))));
    let flat =
        |list: fn(&surprisal_api::QueryResult) -> Vec<u32>| whole.results.iter().flat_map(list).collect::<Vec<_>>();
    assert_eq!(integers(&batch, "token"), flat(|result| result.token_ids.clone().unwrap()));
    assert_eq!(integers(&batch, "rank"), flat(|result| result.ranks.clone().unwrap()));
    let real = |list: &Option<Vec<f32>>| -> Vec<u32> { list.iter().flatten().map(|value| value.to_bits()).collect() };
    assert_eq!(
        bits(&batch, "logprob"),
        whole.results.iter().flat_map(|result| real(&result.logprobs)).collect::<Vec<_>>()
    );
    assert_eq!(
        bits(&batch, "entropy"),
        whole.results.iter().flat_map(|result| real(&result.entropies)).collect::<Vec<_>>()
    );
    assert_eq!(
        bits(&batch, "subset_logprob"),
        whole.results.iter().flat_map(|result| real(&result.subset_logprobs)).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn only_requested_columns_are_sent_and_problems_stay_json() {
    let server = Server::start().await;
    let bytes = ask(&server, &json!({"queries": [{"target": "ab"}]})).await.bytes().await.unwrap();
    let batch = StreamReader::try_new(bytes.as_ref(), None).unwrap().next().unwrap().unwrap();
    let names: Vec<_> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["query", "position", "token", "logprob"]);
    for (body, problem) in [
        (json!({"queries": [{"target": "ab"}], "top": 2}), (400, "not-offered")),
        (json!({"queries": [{"target": [FAILS]}]}), (500, "backend-failed")),
    ] {
        let (status, name, _) = Reply::read(ask(&server, &body).await).await.problem();
        assert_eq!((status, name.as_str()), problem);
    }
}
