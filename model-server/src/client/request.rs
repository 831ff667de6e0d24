//! Requests to the models of this server.

use std::collections::BTreeMap;

use crate::messages::{
    ClassificationRequest, Example, ExampleList, Examples, GetModelMetadataRequest, GetModelStatusRequest,
    InferenceTask, Input, Int64Value, ModelSpec, MultiInferenceRequest, PredictRequest, RegressionRequest,
    TensorProto, VersionChoice,
};
use crate::signature::{CLASSIFY, REGRESS};
use crate::tensor;

/// Which version of a model is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked<'a> {
    Latest,
    /// Version 0 is an empty wrapper on the wire, `12 00`, which is not the same as `Latest`.
    Version(i64),
    Label(&'a str),
}

pub fn model_spec(model: &str, asked: Asked<'_>, signature: &str) -> ModelSpec {
    let version_choice = match asked {
        Asked::Latest => None,
        Asked::Version(value) => Some(VersionChoice::Version(Int64Value { value })),
        Asked::Label(label) => Some(VersionChoice::VersionLabel(label.to_owned())),
    };
    ModelSpec { name: model.to_owned(), version_choice, signature_name: signature.to_owned() }
}

/// A Predict of a vector, written in `float_val`.
pub fn predict_request(model: &str, asked: Asked<'_>, x: &[f32]) -> PredictRequest {
    predict_tensor(model, asked, tensor::floats(&[length(x)], x.to_vec()))
}

/// A Predict of a vector, written in `tensor_content` as numpy's clients do.
pub fn predict_content_request(model: &str, asked: Asked<'_>, x: &[f32]) -> PredictRequest {
    predict_tensor(model, asked, tensor::float_content(&[length(x)], x))
}

/// A Predict of any tensor.
pub fn predict_tensor(model: &str, asked: Asked<'_>, x: TensorProto) -> PredictRequest {
    PredictRequest {
        model_spec: Some(model_spec(model, asked, "")),
        inputs: BTreeMap::from([("x".to_owned(), x)]),
        output_filter: Vec::new(),
    }
}

pub fn classify_request(model: &str, asked: Asked<'_>, x: &[f32]) -> ClassificationRequest {
    ClassificationRequest {
        model_spec: Some(model_spec(model, asked, "classify_x_to_y")),
        input: Some(examples(x)),
    }
}

pub fn regress_request(model: &str, asked: Asked<'_>, x: &[f32]) -> RegressionRequest {
    RegressionRequest {
        model_spec: Some(model_spec(model, asked, "regress_x_to_y")),
        input: Some(examples(x)),
    }
}

/// Both a Regress and a Classify of the same examples.
pub fn multi_inference_request(model: &str, asked: Asked<'_>, x: &[f32]) -> MultiInferenceRequest {
    let task = |signature: &str, method: &str| InferenceTask {
        model_spec: Some(model_spec(model, asked, signature)),
        method_name: method.to_owned(),
    };
    MultiInferenceRequest {
        tasks: vec![task("regress_x_to_y", REGRESS), task("classify_x_to_y", CLASSIFY)],
        input: Some(examples(x)),
    }
}

pub fn metadata_request(model: &str, asked: Asked<'_>) -> GetModelMetadataRequest {
    GetModelMetadataRequest {
        model_spec: Some(model_spec(model, asked, "")),
        metadata_field: vec!["signature_def".to_owned()],
    }
}

pub fn status_request(model: &str, asked: Asked<'_>) -> GetModelStatusRequest {
    GetModelStatusRequest { model_spec: Some(model_spec(model, asked, "")) }
}

/// An example for each number.
pub fn examples(x: &[f32]) -> Input {
    let examples = x.iter().map(|&x| Example::number("x", x)).collect();
    Input { kind: Some(Examples::ExampleList(ExampleList { examples })) }
}

fn length(x: &[f32]) -> i64 {
    i64::try_from(x.len()).unwrap_or(i64::MAX)
}
