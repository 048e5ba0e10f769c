//! `docs/src/fields.md` is generated from `/openapi.json`.
//!
//! To update the page: `UPDATE_DOCS=1 cargo test -p surprisal-server --test http reference`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::Server;

const INTRODUCTION: &str = "# Field reference\n\nThis page lists every JSON object of the API. It is generated from `/openapi.json`. \
    The [API reference](api.md) explains the routes with examples. Fields marked * are required in a request and always present in a response.\n";

#[tokio::test]
async fn the_field_reference_matches_the_openapi_document() {
    let server = Server::start().await;
    let document = server.get("/openapi.json").await.json();
    check_page("fields.md", &render_page(&document));
}

/// Compares a page of the book with the generated one, or replaces it if `UPDATE_DOCS` is set.
pub(crate) fn check_page(name: &str, generated: &str) {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        return std::fs::write(page_path(name), generated).unwrap();
    }
    let saved = read_page(name);
    let outdated = format!("docs/src/{name} is out of date; run this test with UPDATE_DOCS=1");
    for (saved, generated) in saved.lines().zip(generated.lines()) {
        assert_eq!(saved, generated, "{outdated}");
    }
    assert_eq!(saved.len(), generated.len(), "{outdated}");
}

/// Returns the text of a page of the book.
pub(crate) fn read_page(name: &str) -> String {
    std::fs::read_to_string(page_path(name)).unwrap()
}

fn page_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src").join(name)
}

/// Returns the page: the routes, then every schema with a table of its fields or its JSON forms.
fn render_page(document: &Value) -> String {
    let mut page = INTRODUCTION.to_owned();
    page += "\n## Routes\n\n| route | request | response | purpose |\n|---|---|---|---|\n";
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(key, _)| *key != "parameters") {
            let request = link(&operation["requestBody"]["content"]["application/json"]["schema"]);
            let response = link(&operation["responses"]["200"]["content"]["application/json"]["schema"]);
            let purpose = to_one_line(&operation["summary"]);
            writeln!(page, "| `{} {path}` | {request} | {response} | {purpose} |", method.to_uppercase()).unwrap();
        }
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        page += &render_section(name, schema);
    }
    page
}

/// Returns the section of one schema.
fn render_section(name: &str, schema: &Value) -> String {
    let mut section = format!("\n## {name}\n\n");
    let description = to_one_line(&schema["description"]);
    if !description.is_empty() {
        section += &format!("{description}\n\n");
    }
    let Some(fields) = schema["properties"].as_object() else {
        return section + &format!("JSON: {}.\n", type_name(schema));
    };
    section += "| field | type | meaning |\n|---|---|---|\n";
    let (compatible, own): (Vec<_>, Vec<_>) = fields.iter().partition(|field| field.1["x-compatibility"] == true);
    for (field, field_schema) in own {
        let required = schema["required"].as_array().is_some_and(|required| required.iter().any(|name| name == field));
        let mark = if required { " *" } else { "" };
        let meaning = find_description(field_schema);
        writeln!(section, "| `{field}`{mark} | {} | {meaning} |", type_name(field_schema)).unwrap();
    }
    section + &list_compatible_fields(&compatible)
}

/// Lists the fields that exist only for compatibility with other servers, by their meanings.
fn list_compatible_fields(fields: &[(&String, &Value)]) -> String {
    let mut by_meaning: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (field, schema) in fields {
        by_meaning.entry(find_description(schema)).or_default().push(format!("`{field}`"));
    }
    if by_meaning.is_empty() {
        return String::new();
    }
    let mut list =
        "\nFor compatibility, the server accepts these fields with values that change nothing:\n\n".to_owned();
    for (meaning, fields) in by_meaning {
        writeln!(list, "- {}: {meaning}", fields.join(", ")).unwrap();
    }
    list
}

/// Returns a field's description; utoipa puts that of an optional object into the alternative that is not null.
fn find_description(schema: &Value) -> String {
    let alternatives = schema["oneOf"].as_array().into_iter().flatten();
    let mut descriptions =
        std::iter::once(schema).chain(alternatives).map(|schema| to_one_line(&schema["description"]));
    descriptions.find(|description| !description.is_empty()).unwrap_or_default()
}

/// Returns the type of a value in words, such as `array of integer`, with links to other schemas; null is omitted.
fn type_name(schema: &Value) -> String {
    if schema.get("$ref").is_some() {
        return link(schema);
    }
    for (key, word) in [("oneOf", " or "), ("anyOf", " or "), ("allOf", " and ")] {
        if let Some(schemas) = schema[key].as_array() {
            let kinds: Vec<String> = schemas.iter().map(type_name).filter(|kind| kind != "null").collect();
            return kinds.join(word);
        }
    }
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
        return values.join(" or ");
    }
    let names: Vec<&str> = match &schema["type"] {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect(),
        _ => return "any".to_owned(),
    };
    match names[..] {
        ["array"] => match schema["prefixItems"].as_array() {
            Some(items) => format!("array \\[{}\\]", items.iter().map(type_name).collect::<Vec<_>>().join(", ")),
            None => format!("array of {}", type_name(&schema["items"])),
        },
        ["object"] if schema["additionalProperties"].is_object() => {
            format!("object of {}", type_name(&schema["additionalProperties"]))
        }
        ["object"] if schema["properties"].is_object() => {
            let fields = schema["properties"].as_object().unwrap().iter();
            let fields: Vec<String> = fields.map(|(name, field)| format!("`{name}`: {}", type_name(field))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        _ => names.join(" or "),
    }
}

/// Returns a link to the section of a `$ref`'s schema; nothing if there is none.
fn link(schema: &Value) -> String {
    let name = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    if name.is_empty() { String::new() } else { format!("[{name}](#{})", name.to_lowercase()) }
}

/// Returns a description on one line, safe inside a table.
fn to_one_line(description: &Value) -> String {
    let text = description.as_str().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
