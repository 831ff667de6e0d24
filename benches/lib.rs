//! What the benches share: a configuration and a request like those of real use.

use predictgate::config;
use predictgate::headers::Headers;
use predictgate::policy::Policy;

/// A configuration with so many models, each with three routes, of which the last one splits by user.
///
/// # Panics
///
/// When the configuration is refused, which is a defect of the bench.
pub fn policy(models: usize) -> Policy {
    let model = |place: usize| {
        format!(
            r#"{{ "name": "model-{place:05}",
                 "targets": {{ "stable": {{ "cluster": "{place}-v1" }}, "canary": {{ "cluster": "{place}-v2" }} }},
                 "routes": [
                   {{ "match": {{ "version": "1" }}, "split": [ {{ "target": "stable" }} ] }},
                   {{ "match": {{ "label": "canary" }}, "split": [ {{ "target": "canary" }} ] }},
                   {{ "split": [ {{ "target": "stable", "weight": 95 }}, {{ "target": "canary", "weight": 5 }} ],
                      "sticky": {{ "by": [ {{ "header": "x-user-id" }} ], "salt": "2026-11" }} }} ] }}"#
        )
    };
    let models: Vec<_> = (0..models).map(model).collect();
    let text = format!(r#"{{ "models": [{}] }}"#, models.join(","));
    config::parse(&text).unwrap_or_else(|errors| panic!("{errors:?}"))
}

/// The headers that grpcio sends.
pub fn request_headers() -> Headers {
    Headers::from_pairs(&[
        (":path", "/tensorflow.serving.PredictionService/Predict"),
        (":authority", "models.example:8080"),
        (":method", "POST"),
        (":scheme", "http"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("grpc-accept-encoding", "identity, deflate, gzip"),
        ("grpc-timeout", "5S"),
        ("user-agent", "grpc-python/1.85.1 grpc-c/58.0.0 (linux; chttp2)"),
        ("x-user-id", "7f3a1c52-8f6b-4f0e-9d1e-0d6c5b1d2e11"),
        ("x-request-id", "0f0e0d0c-0b0a-0908-0706-050403020100"),
    ])
}

/// A `PredictRequest` in a gRPC frame whose one tensor has so many bytes.
///
/// # Panics
///
/// When the tensor is longer than a gRPC message may be.
pub fn predict(model: &str, tensor: usize) -> Vec<u8> {
    let spec = field(1, &field(1, model.as_bytes()));
    let content = vec![0x3f; tensor];
    let value = [&[8, 1][..], &field(2, &field(2, &[8, 1])), &field(4, &content)].concat();
    let input = [field(1, b"x"), field(2, &value)].concat();
    let body = [spec, field(2, &input)].concat();
    let length = u32::try_from(body.len()).unwrap_or_else(|error| panic!("{error}"));
    [&[0][..], &length.to_be_bytes(), &body].concat()
}

fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    let mut length = content.len();
    while length > 127 {
        field.push(u8::try_from(length & 127).unwrap_or_default() | 128);
        length >>= 7;
    }
    field.push(u8::try_from(length).unwrap_or_default());
    field.extend_from_slice(content);
    field
}
