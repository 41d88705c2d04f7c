//! The OpenAPI document of the native API, made from the route tables.
//!
//! Room      `http`.
//! Source    OpenAPI Specification 3.1.0; JSON Schema 2020-12.

use bytes::Bytes;
use lastkey_wire::native::error::{DryRunReply, ErrorBody};
use lastkey_wire::native::query::DryRunQuery;
use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::encode::to_json;
use super::routes::{ROUTES, Reply, Route, Source};
use crate::sys::{PUBLIC, PublicRoute};

/// The document, as JSON.
pub(crate) fn document(server_version: &str) -> Bytes {
    let settings = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    for route in PUBLIC {
        add(&mut paths, route.path, route.method.as_str(), public(route, &mut generator));
    }
    for route in ROUTES {
        add(
            &mut paths,
            &shown(route.path),
            route.method.as_str(),
            protected(route, &mut generator),
        );
    }
    let error = generator.subschema_for::<ErrorBody>();
    let schemas = generator.take_definitions(true);
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Lastkey",
            "version": server_version,
            "description": "Self-hosted key service. Binary values are padded standard base64. \
                            Unknown fields are refused.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "responses": { "Error": response("An error.", &error) },
        },
    });
    to_json(&document).into()
}

/// A path as the document writes it: a parameter that may hold slashes looks like any other.
fn shown(path: &str) -> String {
    path.replace("{+", "{")
}

fn add(paths: &mut Map<String, Value>, path: &str, method: &str, operation: Value) {
    let item = paths.entry(path).or_insert_with(|| json!({}));
    if let Value::Object(methods) = item {
        methods.insert(method.to_ascii_lowercase(), operation);
    }
}

fn public(route: &PublicRoute, generator: &mut SchemaGenerator) -> Value {
    let mut operation = json!({
        "operationId": operation_id(route.method.as_str(), route.path),
        "summary": route.summary,
        "security": [],
        "responses": {
            "200": route.reply.map_or_else(
                || json!({ "description": "Done." }),
                |reply| response("Done.", &reply(generator)),
            ),
            "default": { "$ref": "#/components/responses/Error" },
        },
    });
    if let (Some(request), Value::Object(fields)) = (route.request, &mut operation) {
        fields.insert("requestBody".to_owned(), request_body(&request(generator)));
    }
    operation
}

fn protected(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let mut parameters = path_parameters(route.path);
    let mut body = None;
    match &route.request {
        Source::Body(request) => {
            parameters.extend(query_parameters(&generator.root_schema_for::<DryRunQuery>()));
            body = Some(request_body(&request(generator)));
        }
        Source::Query(query) => {
            let schema = query(generator);
            parameters.extend(query_parameters(&resolved(&schema, generator)));
        }
    }
    let mut operation = json!({
        "operationId": operation_id(route.method.as_str(), route.path),
        "summary": route.summary,
        "x-lastkey-action": route.action,
        "parameters": parameters,
        "responses": {
            "200": answer(&route.reply, generator),
            "default": { "$ref": "#/components/responses/Error" },
        },
    });
    if let (Some(body), Value::Object(fields)) = (body, &mut operation) {
        fields.insert("requestBody".to_owned(), body);
    }
    operation
}

/// The answer to a call, or to a dry run of it.
fn answer(reply: &Reply, generator: &mut SchemaGenerator) -> Value {
    let dry_run = generator.subschema_for::<DryRunReply>();
    let description = "Done, or the answer to a dry run.";
    match reply {
        Reply::Json(schema) => {
            response(description, &json!({ "oneOf": [schema(generator), dry_run] }))
        }
        Reply::LogFile => json!({ "description": description, "content": {
            "text/plain": { "schema": { "type": "string" } },
            "application/octet-stream": {},
            "application/json": { "schema": dry_run },
        } }),
    }
}

fn response(description: &str, schema: &impl serde::Serialize) -> Value {
    json!({ "description": description, "content": { "application/json": { "schema": schema } } })
}

fn request_body(schema: &Schema) -> Value {
    json!({ "content": { "application/json": { "schema": schema } } })
}

/// `post_keys_key_rotate` for `POST /v1/keys/{key}/rotate`.
fn operation_id(method: &str, path: &str) -> String {
    let path = path.trim_start_matches("/v1").trim_start_matches('/');
    let words = path.replace(['/', '-', '.'], "_").replace(['{', '}', '+'], "");
    format!("{}_{words}", method.to_ascii_lowercase())
}

fn path_parameters(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|segment| segment.strip_prefix('{'));
    let parameter = |name: &str| {
        let name = name.trim_start_matches('+').trim_end_matches('}');
        let (kind, description) = meaning(name)?;
        Some(json!({
            "name": name,
            "in": "path",
            "required": true,
            "description": description,
            "schema": { "type": kind },
        }))
    };
    names.filter_map(parameter).collect()
}

/// Type and meaning of a parameter of paths. A test finds a name without one.
fn meaning(name: &str) -> Option<(&'static str, &'static str)> {
    let (kind, description) = match name {
        "alias" => ("string", "An alias, percent-encoded: `alias%2Fapp`."),
        "backup" => ("string", "Id of a backup, 32 hexadecimal digits."),
        "file" => ("string", "A file of the log, as C2SP tlog-tiles names it; slashes stay."),
        "key" => ("string", "A key id, or an alias, percent-encoded: `alias%2Fapp`."),
        "lease" => ("string", "A lease, 32 hexadecimal digits."),
        "name" => ("string", "Name of what the segment before it is about: a role, a database."),
        "place" => ("string", "Place that reported, percent-encoded."),
        "record" => ("string", "Number of a record, or the id of a request."),
        "seal" => ("string", "Id of a seal, 32 hexadecimal digits."),
        "secret" => ("string", "Name of a secret, percent-encoded: `prod%2Fshop%2Fdb`."),
        "stage" => ("string", "A stage: `current`, `previous`, `pending`, or one's own."),
        "version" => ("integer", "A version, from 1."),
        _ => return None,
    };
    Some((kind, description))
}

/// The schema that a reference points to.
fn resolved(schema: &Schema, generator: &SchemaGenerator) -> Schema {
    let name = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
    let found = name.and_then(|name| generator.definitions().get(name));
    found.and_then(|value| Schema::try_from(value.clone()).ok()).unwrap_or_default()
}

fn query_parameters(schema: &Schema) -> Vec<Value> {
    let properties = schema.get("properties").and_then(Value::as_object);
    let parameter = |(name, schema): (&String, &Value)| json!({ "name": name, "in": "query", "required": false, "schema": schema });
    properties.into_iter().flatten().map(parameter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed() -> Value {
        serde_json::from_slice(&document("1.2.3")).unwrap()
    }

    #[test]
    fn document_mentions_every_route_and_no_other() {
        let document = parsed();
        let mut mentioned = 0;
        for (path, item) in document["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys() {
                mentioned += 1;
                let is_public = PUBLIC
                    .iter()
                    .any(|r| r.path == path && r.method.as_str() == method.to_uppercase());
                let security = &item[method]["security"];
                assert_eq!(security == &json!([]), is_public, "{method} {path}");
            }
        }
        assert_eq!(mentioned, PUBLIC.len() + ROUTES.len());
        for route in ROUTES {
            let method = route.method.as_str().to_lowercase();
            let operation = &document["paths"][shown(route.path)][&method];
            assert_eq!(operation["summary"], route.summary, "{route:?}");
            assert_eq!(
                operation["parameters"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter(|p| p["in"] == "path")
                    .count(),
                route.path.matches('{').count(),
                "{route:?}"
            );
        }
    }

    #[test]
    fn parameters_of_paths_are_described_for_what_they_are() {
        for route in ROUTES {
            for name in route.path.split(['{', '}']).skip(1).step_by(2) {
                assert!(meaning(name.trim_start_matches('+')).is_some(), "{name}: {route:?}");
            }
        }
        let secret = &parsed()["paths"]["/v1/secrets/{secret}"]["get"]["parameters"][0];
        assert_eq!(secret["name"], "secret");
        assert_eq!(secret["description"], meaning("secret").unwrap().1);
    }

    #[test]
    fn files_of_the_log_are_no_json() {
        let document = parsed();
        let done = &document["paths"]["/v1/audit/tlog/{file}"]["get"]["responses"]["200"];
        assert_eq!(done["content"]["text/plain"]["schema"], json!({ "type": "string" }));
        assert_eq!(done["content"]["application/octet-stream"], json!({}));
        let json = &done["content"]["application/json"]["schema"]["$ref"];
        assert_eq!(json, "#/components/schemas/DryRunReply");
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = parsed();
        let mut references = Vec::new();
        collect(&document, &mut references);
        assert!(references.len() > 100);
        for reference in references {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(reference)) = fields.get("$ref") {
                    found.push(reference.clone());
                }
                fields.values().for_each(|field| collect(field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    #[test]
    fn names_of_schemas_and_operations_are_well_formed_and_unique() {
        let document = parsed();
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        for name in document["components"]["schemas"].as_object().unwrap().keys() {
            assert!(name.chars().all(allowed), "{name}");
        }
        let mut ids: Vec<_> =
            ROUTES.iter().map(|route| operation_id(route.method.as_str(), route.path)).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), ROUTES.len());
    }

    #[test]
    fn requests_refuse_unknown_fields_and_queries_list_their_names() {
        let document = parsed();
        let encrypt = &document["components"]["schemas"]["EncryptRequest"];
        assert_eq!(encrypt["additionalProperties"], json!(false));
        assert_eq!(encrypt["required"], json!(["key", "plaintext"]));
        let parameters = document["paths"]["/v1/keys"]["get"]["parameters"].as_array().unwrap();
        let mut names: Vec<_> = parameters.iter().map(|p| p["name"].as_str().unwrap()).collect();
        names.sort_unstable();
        assert_eq!(names, ["dry_run", "limit", "marker"]);
    }
}
