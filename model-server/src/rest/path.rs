//! What a REST path means, by TensorFlow Serving's own rules.
//!
//! The expressions are matched against the whole request target, query included, without regard to case;
//! name and label are percent-decoded only after the match, the verb is compared as it is.
//! So `/V1/Models/res%6eet:predict` is a Predict of `resnet`, and `...:predict?x=1` is malformed.

use std::sync::LazyLock;

use percent_encoding::percent_decode_str;
use regex::Regex;

use crate::errors::Failure;
use crate::messages::{Int64Value, ModelSpec, VersionChoice};
use crate::rpc::Rpc;

static ALL: LazyLock<Regex> = LazyLock::new(|| full(r"/v1/.*"));
static PREDICTION: LazyLock<Regex> = LazyLock::new(|| {
    full(r"/v1/models/([^/:]+)(?:(?:/versions/([0-9]+))|(?:/labels/([^/:]+)))?:(classify|regress|predict)")
});
static STATUS: LazyLock<Regex> = LazyLock::new(|| {
    full(r"/v1/models(?:/([^/:]+))?(?:(?:/versions/([0-9]+))|(?:/labels/([^/:]+)))?(?:/(metadata))?")
});

fn full(expression: &str) -> Regex {
    Regex::new(&format!("(?i)^(?:{expression})$")).expect("a constant expression")
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// Not under `/v1/`: 404, with nothing said.
    Outside,
    /// A CORS preflight.
    Preflight,
    /// 400 with an empty body: the version is no 64-bit number.
    Overflow,
    Refused(Failure),
    Call(Rpc, ModelSpec),
}

pub(crate) fn route(method: &str, target: &str) -> Route {
    if !ALL.is_match(target) {
        return Route::Outside;
    }
    if method == "OPTIONS" {
        return Route::Preflight;
    }
    let expression = match method {
        "POST" => &*PREDICTION,
        "GET" => &*STATUS,
        _ => return malformed(method, target),
    };
    let Some(parts) = expression.captures(target) else { return malformed(method, target) };
    let part = |index| parts.get(index).map_or("", |part| part.as_str());
    let Ok(version) = Some(part(2)).filter(|digits| !digits.is_empty()).map(str::parse).transpose() else {
        return Route::Overflow;
    };
    let rpc = match (method, part(4)) {
        ("POST", "predict") => Rpc::Predict,
        ("POST", "classify") => Rpc::Classify,
        ("POST", "regress") => Rpc::Regress,
        ("POST", _) => return malformed(method, target),
        (_, "metadata") => Rpc::GetModelMetadata,
        _ => Rpc::GetModelStatus,
    };
    let name = decode(part(1));
    if name.is_empty() {
        return Route::Refused(Failure::invalid("Missing model name in request."));
    }
    let label = Some(decode(part(3))).filter(|label| !label.is_empty());
    let version_choice = version
        .map(|value| VersionChoice::Version(Int64Value { value }))
        .or(label.map(VersionChoice::VersionLabel));
    Route::Call(rpc, ModelSpec { name, version_choice, signature_name: String::new() })
}

fn malformed(method: &str, target: &str) -> Route {
    Route::Refused(Failure::invalid(format!("Malformed request: {method} {target}")))
}

fn decode(part: &str) -> String {
    percent_decode_str(part).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str) -> ModelSpec {
        ModelSpec { name: name.to_owned(), ..ModelSpec::default() }
    }

    fn version(name: &str, value: i64) -> ModelSpec {
        ModelSpec { version_choice: Some(VersionChoice::Version(Int64Value { value })), ..spec(name) }
    }

    fn label(name: &str, label: &str) -> ModelSpec {
        ModelSpec { version_choice: Some(VersionChoice::VersionLabel(label.to_owned())), ..spec(name) }
    }

    #[track_caller]
    fn check(method: &str, target: &str, expected: &Route) {
        assert_eq!(route(method, target), *expected, "{method} {target}");
    }

    #[track_caller]
    fn call(method: &str, target: &str, rpc: Rpc, spec: ModelSpec) {
        check(method, target, &Route::Call(rpc, spec));
    }

    #[track_caller]
    fn refused(method: &str, target: &str) {
        check(method, target, &malformed(method, target));
    }

    #[test]
    fn paths_name_a_model_a_version_or_a_label() {
        call("POST", "/v1/models/m:predict", Rpc::Predict, spec("m"));
        call("POST", "/v1/models/m:classify", Rpc::Classify, spec("m"));
        call("POST", "/v1/models/m:regress", Rpc::Regress, spec("m"));
        call("POST", "/v1/models/m/versions/2:predict", Rpc::Predict, version("m", 2));
        call("POST", "/v1/models/m/versions/002:predict", Rpc::Predict, version("m", 2));
        call("POST", "/v1/models/m/labels/canary:predict", Rpc::Predict, label("m", "canary"));
        call("GET", "/v1/models/m", Rpc::GetModelStatus, spec("m"));
        call("GET", "/v1/models/m/versions/2", Rpc::GetModelStatus, version("m", 2));
        call("GET", "/v1/models/m/labels/l", Rpc::GetModelStatus, label("m", "l"));
        call("GET", "/v1/models/m/metadata", Rpc::GetModelMetadata, spec("m"));
        call("GET", "/v1/models/m/labels/l/metadata", Rpc::GetModelMetadata, label("m", "l"));
    }

    #[test]
    fn case_does_not_matter_but_for_the_verb() {
        call("POST", "/V1/Models/resnet/VERSIONS/1:predict", Rpc::Predict, version("resnet", 1));
        refused("POST", "/v1/models/resnet:Predict");
        call("GET", "/v1/models/m/METADATA", Rpc::GetModelStatus, spec("m"));
    }

    #[test]
    fn names_and_labels_are_decoded_after_the_match() {
        call("POST", "/V1/Models/res%6eet:predict", Rpc::Predict, spec("resnet"));
        call("POST", "/v1/models/a%2Fb:predict", Rpc::Predict, spec("a/b"));
        call("POST", "/v1/models/a%3Ab:predict", Rpc::Predict, spec("a:b"));
        call("POST", "/v1/models/m/labels/a%20b:predict", Rpc::Predict, label("m", "a b"));
        call("POST", "/v1/models/a+b:predict", Rpc::Predict, spec("a+b"));
        call("POST", "/v1/models/a%zz:predict", Rpc::Predict, spec("a%zz"));
        refused("POST", "/v1/models/m%3Apredict");
        refused("POST", "/v1/models/m%2Fversions%2F1");
    }

    #[test]
    fn the_query_is_part_of_what_is_matched() {
        refused("POST", "/v1/models/m:predict?x=1");
        call("GET", "/v1/models/m?x=1", Rpc::GetModelStatus, spec("m?x=1"));
    }

    #[test]
    fn everything_else_under_v1_is_malformed() {
        refused("POST", "/v1/models/m");
        refused("POST", "/v1/models/m:explain");
        refused("POST", "/v1/models/m:predict/");
        refused("POST", "/v1/models/m/versions/x:predict");
        refused("POST", "/v1/models/m/versions/1/labels/l:predict");
        refused("POST", "/v1/models/:predict");
        refused("GET", "/v1/models/m:predict");
        refused("GET", "/v1/models/m/");
        refused("GET", "/v1/elsewhere");
        refused("DELETE", "/v1/models/m");
    }

    #[test]
    fn what_names_no_model_or_no_number_is_refused() {
        let unnamed = Route::Refused(Failure::invalid("Missing model name in request."));
        check("GET", "/v1/models", &unnamed);
        check("GET", "/v1/models/versions/1", &unnamed);
        check("POST", "/v1/models/m/versions/9223372036854775808:predict", &Route::Overflow);
        call("GET", "/v1/models/m/versions/9223372036854775807", Rpc::GetModelStatus, version("m", i64::MAX));
    }

    #[test]
    fn the_api_begins_at_v1() {
        check("GET", "/", &Route::Outside);
        check("GET", "/v1", &Route::Outside);
        check("POST", "/v2/models/m/infer", &Route::Outside);
        check("OPTIONS", "/v1/models/m:predict", &Route::Preflight);
    }
}
