//! Log-probabilities of a small Llama trained on novels equal those of transformers.
//!
//! The test is skipped if the model is not next to the checkout. The expected values are from transformers 5.23, which
//! read the weights as f32 and computed in float64.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use serde_json::json;
use surprisal_engine::SchedulerConfig;
use surprisal_server::ServerConfig;
use surprisal_tests::server::{TestServer, bits};

const TEXT: &str = "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in \
                    want of a wife.";

#[rustfmt::skip]
const TOKENS: [u32; 46] = [
    906, 361, 260, 609, 309, 73, 501, 74, 336, 84, 593, 260, 403, 79, 306, 760, 1013, 13, 313, 260, 262, 277, 292, 444,
    293, 604, 366, 398, 333, 285, 260, 683, 346, 85, 555, 70, 13, 711, 303, 293, 837, 285, 260, 263, 674, 15,
];

#[rustfmt::skip]
const LOGPROBS: [f64; 46] = [
    -9.145765, -1.18038, -2.799553, -5.110711, -3.33254, -0.013632, -6.900762, -3.625723, -0.175793, -0.388384,
    -2.763116, -3.5197, -6.512158, -0.064324, -0.060625, -0.534922, -3.132773, -2.433774, -3.703278, -3.960673,
    -4.321066, -3.44287, -0.460401, -2.49415, -3.378518, -6.661911, -2.085628, -0.455271, -0.400759, -1.111535,
    -2.764248, -4.921484, -4.640111, -2.363639, -0.297482, -0.476955, -1.421604, -6.759436, -0.957485, -3.71452,
    -9.201247, -1.477346, -2.602897, -4.518273, -2.664987, -2.486285,
];

#[tokio::test(flavor = "multi_thread")]
async fn log_probabilities_equal_those_of_transformers() {
    let model = Path::new("../../shared/data/books/books-llama");
    if !model.exists() {
        eprintln!("skipped: {} does not exist", model.display());
        return;
    }
    let server = TestServer::start(model, SchedulerConfig::default(), ServerConfig::default()).await;
    let answer = server.logprobs(&json!({"queries": [{"target": TEXT}], "detail": "tokens"})).await;
    let result = &answer["results"][0];
    assert_eq!(result["token_ids"], json!(TOKENS.to_vec()));
    for (i, (got, want)) in bits(result).into_iter().map(f32::from_bits).zip(LOGPROBS).enumerate() {
        assert!((f64::from(got) - want).abs() < 1e-5, "token {i}: {got} {want}");
    }
    let accented = server.logprobs(&json!({"queries": [{"target": "a truth — née"}], "detail": "tokens"})).await;
    let offsets = json!([[0, 1], [1, 4], [4, 6], [6, 7], [7, 8], [8, 11], [11, 13], [13, 15], [15, 16]]);
    assert_eq!(accented["results"][0]["offsets"], offsets);
    server.stop().await;
}
