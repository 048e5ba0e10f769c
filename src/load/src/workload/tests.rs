//! Tests that requests match their workload, and that invalid workloads are rejected.

use super::generator::{SPECIAL_IDS, START_ID};
use super::*;

const PAIRS: Workload = Workload::Pairs { contexts: 2, context_length: 5, targets: 3, target_length: 4, prefixes: 4 };
const MIXED: Workload =
    Workload::Mixed { length: 16, interactive: 0.25, context_length: 4, target_length: 2, prefixes: 2 };

#[test]
fn a_request_depends_only_on_seed_and_index() {
    for workload in [Workload::Documents { length: 9 }, PAIRS, Workload::Splits { length: 16 }, MIXED] {
        let request = |seed, index| workload.request(seed, index, 50);
        assert_eq!(request(1, 7), request(1, 7));
        assert_ne!(request(1, 7), request(1, 8));
        assert_ne!(request(1, 7), request(2, 7));
        for (context, target) in request(1, 7).pair_texts() {
            assert_eq!(context[0], START_ID);
            assert!(context[1..].iter().chain(target).all(|id| (SPECIAL_IDS..50).contains(id)));
            assert!(context.len() + target.len() <= workload.max_length());
        }
    }
}

#[test]
fn requests_have_the_shape_of_their_workload() {
    let document = Workload::Documents { length: 9 }.request(1, 0, 50);
    assert_eq!((document.scored_tokens(), document.pairs.len()), (8, 1));
    let pairs = PAIRS.request(1, 0, 50);
    assert_eq!((pairs.scored_tokens(), pairs.pairs.len()), (24, 6));
    assert_ne!(pairs.contexts[0], pairs.contexts[1]);
    let contexts: std::collections::BTreeSet<_> = (0..50).flat_map(|i| PAIRS.request(1, i, 50).contexts).collect();
    assert_eq!(contexts.len(), 4, "all contexts come from the pool");
    let splits = Workload::Splits { length: 16 }.request(1, 0, 50);
    assert_eq!(splits.scored_tokens(), 3 * (2 + 4 + 8));
    let short = (0..1000).filter(|&i| MIXED.request(1, i, 50).class == LatencyClass::Interactive).count();
    assert!((200..300).contains(&short), "{short}");
}

#[test]
fn invalid_shapes_are_rejected() {
    let told = |workload: Workload, vocabulary, longest| workload.check(vocabulary, longest).unwrap_err().to_string();
    assert_eq!(told(Workload::Documents { length: 1 }, 50, None), "length is 1; it must be at least 2");
    assert!(told(Workload::Splits { length: 12 }, 50, None).contains("power of two"));
    assert!(told(Workload::Documents { length: 9 }, 3, None).contains("vocabulary is 3"));
    assert!(told(PAIRS, 50, Some(8)).contains("is 9; it must be at most 8"));
    let few = Workload::Pairs { contexts: 2, context_length: 5, targets: 3, target_length: 4, prefixes: 1 };
    assert!(told(few, 50, None).contains("prefixes"));
    assert!(PAIRS.check(50, Some(9)).is_ok());
}

#[test]
fn traces_are_read_and_errors_name_the_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace.jsonl");
    let good = r#"{"contexts": [[0, 7], [0]], "targets": [[9], [4]], "pairs": [[1, 0]], "class": "interactive"}"#;
    std::fs::write(&path, format!("{good}\n\n{{\"contexts\": [[0]], \"targets\": [[5, 6]]}}\n")).unwrap();
    let trace = Workload::trace(&path).unwrap();
    let first = trace.request(1, 0, 50);
    assert_eq!(
        (first.pair_texts().collect::<Vec<_>>(), first.class),
        (vec![(&[0][..], &[9][..])], LatencyClass::Interactive)
    );
    assert_eq!(trace.request(1, 2, 50), first, "the trace repeats from its start");
    assert_eq!(trace.request(1, 3 * STREAM_LENGTH, 50), first, "every stream starts at the first request");
    assert_eq!(trace.request(1, 1, 50).scored_tokens(), 2);
    assert!(trace.check(9, None).unwrap_err().to_string().contains("token id is 9"));
    assert!(trace.check(10, None).is_ok());
    for (bad, reason) in [
        (r#"{"contexts": [[0]], "targets": [[]]}"#, "empty"),
        (r#"{"contexts": [[0]], "targets": [[1]], "pairs": [[0, 1]]}"#, "[0, 1]"),
        (r#"{"contexts": [[0]], "target": [[1]]}"#, "unknown field"),
    ] {
        std::fs::write(&path, format!("{good}\n{bad}")).unwrap();
        let told = Workload::trace(&path).unwrap_err().to_string();
        assert!(told.contains("line 2") && told.contains(reason), "{told}");
    }
}
