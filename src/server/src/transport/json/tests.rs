use serde_json::{Value, json};
use surprisal_api::{CompletionsRequest, Detail, GenerateRequest, LogprobsRequest, Prompts, Text};

use super::parse;

fn completions(member: &str) -> CompletionsRequest {
    parse(format!(r#"{{"prompt":"a",{member}}}"#).as_bytes()).unwrap_or_else(|failure| panic!("{member}: {failure:?}"))
}

/// Returns the problem's detail, field, value and limit.
fn problem<T: serde::de::DeserializeOwned + std::fmt::Debug>(body: &str) -> (String, Value) {
    let problem = parse::<T>(body.as_bytes()).unwrap_err().into_problem();
    let members = json!([problem.field, problem.value, problem.limit]);
    (problem.detail, members)
}

#[test]
fn scalars_are_coerced_as_in_pydantic() {
    for (member, number) in
        [("5", 5), (r#""5""#, 5), (r#"" 5 ""#, 5), (r#""5.0""#, 5), (r#""+5""#, 5), ("3.0", 3), ("3e0", 3), ("true", 1)]
    {
        assert_eq!(completions(&format!(r#""max_tokens":{member}"#)).max_tokens, Some(number), "{member}");
    }
    assert_eq!(completions(r#""max_tokens":"\u0035""#).max_tokens, Some(5));
    for (member, number) in [("5", 5.0), (r#""1.5""#, 1.5), (r#""1e1""#, 10.0), ("0.25", 0.25), ("true", 1.0)] {
        assert_eq!(completions(&format!(r#""temperature":{member}"#)).temperature, Some(number), "{member}");
    }
    for (member, flag) in [
        ("true", true),
        (r#""True""#, true),
        (r#""on""#, true),
        (r#""y""#, true),
        ("1", true),
        ("1.0", true),
        ("false", false),
        (r#""0""#, false),
        ("0", false),
    ] {
        assert_eq!(completions(&format!(r#""echo":{member}"#)).echo, flag, "{member}");
    }
}

#[test]
fn null_is_absent() {
    let request = completions(
        r#""max_tokens":null,"echo":null,"add_special_tokens":null,"priority":null,"stream_options":null,"logprobs":null"#,
    );
    assert_eq!((request.max_tokens, request.echo, request.add_special_tokens), (None, false, true));
    let body = br#"{"queries":[{"id":null,"context":null,"target":"b"}],"detail":null,"bos":null,"top":null}"#;
    let request: LogprobsRequest = parse(body).unwrap();
    assert_eq!((request.detail, request.top), (Detail::Sum, 0));
    assert!(request.queries.unwrap()[0].context.is_empty());
}

#[test]
fn a_byte_order_mark_is_skipped() {
    assert!(parse::<CompletionsRequest>("\u{feff}{\"prompt\":\"a\"}".as_bytes()).is_ok());
    let (detail, _) = problem::<CompletionsRequest>("\u{feff}");
    assert!(detail.contains("it is empty"), "{detail}");
}

#[test]
fn elements_of_arrays_are_not_coerced() {
    let (detail, members) = problem::<LogprobsRequest>(r#"{"queries":[{"target":[1,"2"]}]}"#);
    assert_eq!(detail, r#"`queries[0].target[1]` is "2"; it must be an integer from 0 to 4294967295"#);
    assert_eq!(members, json!(["queries[0].target[1]", "2", 4_294_967_295_u32]));
    for element in ["2.0", "true", "null", "-1", "4294967296"] {
        let (_, members) = problem::<LogprobsRequest>(&format!(r#"{{"queries":[{{"target":[1,{element}]}}]}}"#));
        assert_eq!(members[0], "queries[0].target[1]", "{element}");
    }
}

/// Bodies of `/v1/completions`, and the detail, field, value and limit of their problems.
const WRONG_COMPLETIONS: &[(&str, &str, &str)] = &[
    (
        r#"{"prompt":"a","max_tokens":"many"}"#,
        r#"`max_tokens` is "many"; it must be an integer from 0 to 4294967295"#,
        r#"["max_tokens","many",4294967295]"#,
    ),
    (
        r#"{"prompt":"a","max_tokens":-1}"#,
        "`max_tokens` is -1; it must be an integer from 0 to 4294967295",
        r#"["max_tokens",-1,4294967295]"#,
    ),
    (
        r#"{"prompt":"a","max_tokens":1.5}"#,
        "`max_tokens` is 1.5; it must be an integer from 0 to 4294967295",
        r#"["max_tokens",1.5,4294967295]"#,
    ),
    (
        r#"{"prompt":"a","logprobs":70000}"#,
        "`logprobs` is 70000; it must be an integer from 0 to 64",
        r#"["logprobs",70000,64]"#,
    ),
    (
        r#"{"prompt":"a","prompt_logprobs":-1}"#,
        "`prompt_logprobs` is -1; it must be an integer from 0 to 64",
        r#"["prompt_logprobs",-1,64]"#,
    ),
    (
        r#"{"prompt":"a","temperature":"hot"}"#,
        r#"`temperature` is "hot"; it must be a number"#,
        r#"["temperature","hot",null]"#,
    ),
    (
        r#"{"prompt":"a","temperature":"nan"}"#,
        r#"`temperature` is "nan"; it must be a number"#,
        r#"["temperature","nan",null]"#,
    ),
    (
        r#"{"prompt":"a","temperature":1e999}"#,
        "`temperature` is invalid: the number at line 1 column 33 is out of range",
        r#"["temperature",null,null]"#,
    ),
    (r#"{"prompt":"a","echo":2}"#, "`echo` is 2; it must be true or false", r#"["echo",2,null]"#),
    (
        r#"{"prompt":"a","stream_options":[true]}"#,
        "`stream_options` is an array; it must be an object",
        r#"["stream_options",null,null]"#,
    ),
    (r#"{"prompt":"a","stop":3}"#, "`stop` is 3; it must be a string or an array of strings", r#"["stop",3,null]"#),
    (r#"{"prompt":"a","stop":["b",3]}"#, "`stop[1]` is 3; it must be a string", r#"["stop[1]",3,null]"#),
    (r#"{"prompt":"a","model":5}"#, "`model` is 5; it must be a string", r#"["model",5,null]"#),
    (
        r#"{"prompt":5}"#,
        "`prompt` is 5; it must be a string, an array of token ids, or an array of strings or of arrays of token ids",
        r#"["prompt",5,null]"#,
    ),
    (
        r#"{"prompt":["a",[1,[2]]]}"#,
        "`prompt[1][1]` is an array; it must be an integer from 0 to 4294967295",
        r#"["prompt[1][1]",null,4294967295]"#,
    ),
    (
        r#"{"prompt":["a",1]}"#,
        "`prompt` is invalid: token ids and prompts are mixed in one array; send one kind",
        r#"["prompt",null,null]"#,
    ),
    (r#"{"prompt":"a","prompt":"b"}"#, "`prompt` is present twice; send it once", r#"["prompt",null,null]"#),
    (r#"["a"]"#, "the body is an array; it must be an object", "[null,null,null]"),
    ("7", "the body is 7; it must be an object", "[null,7,null]"),
    ("{}", "`prompt` is missing", r#"["prompt",null,null]"#),
];

/// Bodies of `/logprobs`, and the detail and field of their problems.
const WRONG_LOGPROBS: &[(&str, &str, &str)] = &[
    (r#"{"queries":[["a","b"]]}"#, "`queries[0]` is an array; it must be an object", "queries[0]"),
    (r#"{"queries":[{"context":"a"}]}"#, "`queries[0].target` is missing", "queries[0].target"),
    (
        r#"{"queries":[{"target":"b","contxt":""}]}"#,
        "`queries[0].contxt` is not a field of this request; the fields are `id`, `context`, `target`",
        "queries[0].contxt",
    ),
    (r#"{"bos":true}"#, r#"`bos` is true; it must be "auto" or "always" or "none""#, "bos"),
    (r#"{"detail":"all"}"#, r#"`detail` is "all"; it must be "sum" or "tokens""#, "detail"),
    (r#"{"detail":{"sum":null}}"#, r#"`detail` is an object; it must be "sum" or "tokens""#, "detail"),
    (
        r#"{"pairs":"some"}"#,
        r#"`pairs` is "some"; it must be "all" or an array of [context, target] index pairs"#,
        "pairs",
    ),
    (r#"{"pairs":[[0]]}"#, "`pairs[0]` is an array of length 1; it must be an array of length 2", "pairs[0]"),
    (
        r#"{"pairs":[[0,1],[0,1,2,3]]}"#,
        "`pairs[1]` is an array of length 4; it must be an array of length 2",
        "pairs[1]",
    ),
    (r#"{"contexts":"a"}"#, r#"`contexts` is "a"; it must be an array"#, "contexts"),
];

#[test]
fn a_wrong_type_is_named_in_plain_words() {
    for &(body, detail, members) in WRONG_COMPLETIONS {
        let members: Value = serde_json::from_str(members).unwrap();
        assert_eq!(problem::<CompletionsRequest>(body), (detail.to_owned(), members), "{body}");
    }
    for &(body, detail, field) in WRONG_LOGPROBS {
        let (found, members) = problem::<LogprobsRequest>(body);
        assert_eq!((found.as_str(), &members[0]), (detail, &json!(field)), "{body}");
    }
}

#[test]
fn a_long_string_is_shortened() {
    let (detail, members) = problem::<CompletionsRequest>(&json!({"prompt": "a", "n": "x".repeat(1000)}).to_string());
    assert!(detail.len() < 300 && detail.contains(r#"xxx"...; it must be"#), "{detail}");
    assert_eq!(members[1].as_str().unwrap().len(), 100);
}

#[test]
fn values_of_fields_that_are_not_implemented_pass_if_they_change_nothing() {
    for member in [
        r#""repetition_penalty":1.0"#,
        r#""repetition_penalty":"1""#,
        r#""min_p":0"#,
        r#""logit_bias":{}"#,
        r#""logit_bias":null"#,
        r#""suffix":null"#,
        r#""skip_special_tokens":true"#,
        r#""use_beam_search":"false""#,
        r#""response_format":{"type":"text"}"#,
        r#""response_format":{"type":"text","json_schema":null}"#,
        r#""bad_words":[]"#,
        r#""metadata":{"run":[1,{"a":"b"}]}"#,
        r#""stream_options":{"include_obfuscation":false,"include_usage":true}"#,
    ] {
        completions(member);
    }
    parse::<GenerateRequest>(
        br#"{"text":"a","lora_path":[null],"image_data":null,"sampling_params":{"n":1,"frequency_penalty":0.0}}"#,
    )
    .unwrap();
}

#[test]
fn other_values_of_fields_that_are_not_implemented_are_rejected_by_name() {
    for (member, detail, value) in [
        (r#""min_p":0.1"#, "`min_p` is 0.1; it must be 0: constraints on sampled tokens are not supported", json!(0.1)),
        (r#""repetition_penalty":2"#, "`repetition_penalty` is 2; it must be 1: penalties are not supported", json!(2)),
        (
            r#""logit_bias":{"5":1}"#,
            "`logit_bias` is an object; it must be null or empty: constraints on sampled tokens are not supported",
            Value::Null,
        ),
        (
            r#""extra_key":"x""#,
            r#"`extra_key` is "x"; it must be null: send `cache_salt` to separate prefix caches"#,
            json!("x"),
        ),
        (
            r#""response_format":{"type":"json_object"}"#,
            r#"`response_format` is an object; it must be {"type": "text"}: constraints on sampled tokens are not supported"#,
            Value::Null,
        ),
        (
            r#""service_tier":"flex""#,
            r#"`service_tier` is "flex"; it must be "auto" or "default": there is one service tier"#,
            json!("flex"),
        ),
        (
            r#""use_beam_search":true"#,
            "`use_beam_search` is true; it must be false: beam search is not supported",
            json!(true),
        ),
    ] {
        let body = format!(r#"{{"prompt":"a",{member}}}"#);
        let failure = parse::<CompletionsRequest>(body.as_bytes()).unwrap_err();
        assert_eq!(failure.name(), "not-offered");
        let problem = failure.into_problem();
        assert_eq!((problem.detail.as_str(), problem.value.unwrap_or_default()), (detail, value));
        assert_eq!(problem.field.as_deref(), member.split('"').nth(1));
    }
    let (detail, members) = problem::<GenerateRequest>(r#"{"text":"a","sampling_params":{"n":2}}"#);
    assert_eq!(
        (detail.as_str(), &members[0]),
        (
            "`sampling_params.n` is 2; it must be 1: several completions of a prompt are not supported on this route",
            &json!("sampling_params.n")
        )
    );
}

#[test]
fn escaped_keys_and_texts_are_read() {
    let request: CompletionsRequest = parse(br#"{"pro\u006dpt":"\u00e9\n","min\u005fp":0}"#).unwrap();
    assert_eq!(request.prompt, Prompts::One(Text::from("é\n")));
}
