//! Predict, Classify, Regress and MultiInference on a version, in the order of checks of TensorFlow Serving.

use std::collections::BTreeSet;

use crate::errors::{self, Failure};
use crate::messages::{
    Class, ClassificationRequest, ClassificationResponse, ClassificationResult, Classifications, DataType,
    Example, Examples, FeatureKind, InferenceResult, Inferred, Input, Int64Value, ModelSpec,
    MultiInferenceRequest, MultiInferenceResponse, PredictRequest, PredictResponse, Regression,
    RegressionRequest, RegressionResponse, RegressionResult, SignatureDef, TensorProto, VersionChoice,
};
use crate::servable::Servable;
use crate::signature::{self, CLASSIFY, REGRESS, SIGNATURES};
use crate::tensor::{self, Refused};

/// The label of every class that a model here answers.
const LABEL: &str = "y";
/// The feature of an example that is the model's x.
const FEATURE: &str = "x";

pub fn predict(request: &PredictRequest, servable: &Servable) -> Result<PredictResponse, Failure> {
    let name = signature_name(request.model_spec.as_ref());
    let signature = SIGNATURES.get(name).ok_or_else(|| errors::no_predict_signature(name))?;
    let inputs = inputs(request, signature)?;
    let outputs = outputs(request, signature)?;
    let (alias, tensor) = inputs;
    let wrong_type =
        |wanted: DataType, found| errors::wrong_type(tensor::type_name(wanted), tensor::type_name(found));
    let values = match tensor::read_floats(tensor) {
        Ok(values) => values,
        Err(Refused::Malformed) => return Err(errors::tensor_parsing(alias)),
        Err(Refused::Type(DataType::String)) if takes_examples(signature) => {
            return Err(Failure::new(
                tonic::Code::Unimplemented,
                "this server reads examples by Classify and Regress only",
            ));
        }
        Err(Refused::Type(found)) => return Err(wrong_type(DataType::Float, found)),
    };
    if takes_examples(signature) {
        return Err(wrong_type(DataType::String, DataType::Float));
    }
    let values = values.into_iter().map(|x| servable.answer(x)).collect();
    let shape = tensor.tensor_shape.clone().unwrap_or_default();
    let answer = TensorProto { tensor_shape: Some(shape), ..tensor::floats(&[], values) };
    Ok(PredictResponse {
        outputs: outputs.into_iter().map(|alias| (alias.to_owned(), answer.clone())).collect(),
        model_spec: Some(answered_by(servable, name)),
    })
}

fn takes_examples(signature: &SignatureDef) -> bool {
    signature.inputs.values().any(|info| info.dtype() == DataType::String)
}

/// The one input of the signature; every signature here has one.
fn inputs<'a>(
    request: &'a PredictRequest,
    signature: &'a SignatureDef,
) -> Result<(&'a str, &'a TensorProto), Failure> {
    let keys = || request.inputs.keys().map(String::as_str).collect::<BTreeSet<_>>();
    if request.inputs.len() != signature.inputs.len() {
        return Err(errors::input_count(&keys(), &signature.inputs.keys().map(String::as_str).collect()));
    }
    let mut tensors = signature.inputs.iter().map(|(alias, info)| {
        let tensor = request.inputs.get(alias);
        tensor
            .map(|tensor| (alias.as_str(), tensor))
            .ok_or_else(|| errors::input_missing(alias, &info.name, &keys()))
    });
    tensors.next().unwrap_or_else(|| Err(errors::undecodable()))
}

fn outputs<'a>(request: &'a PredictRequest, signature: &'a SignatureDef) -> Result<Vec<&'a str>, Failure> {
    if request.output_filter.is_empty() {
        return Ok(signature.outputs.keys().map(String::as_str).collect());
    }
    let mut seen = Vec::new();
    for alias in &request.output_filter {
        if !signature.outputs.contains_key(alias) {
            let outputs: Vec<_> = signature.outputs.keys().map(String::as_str).collect();
            return Err(errors::unknown_output(alias, &outputs));
        }
        if seen.contains(&alias.as_str()) {
            return Err(errors::duplicate_output(alias));
        }
        seen.push(alias);
    }
    Ok(seen)
}

pub fn classify(
    request: &ClassificationRequest,
    servable: &Servable,
) -> Result<ClassificationResponse, Failure> {
    let name = signature_name(request.model_spec.as_ref());
    let signature = SIGNATURES.get(name).ok_or_else(|| errors::no_example_signature(name))?;
    check_classify(signature)?;
    let result = classifications(&examples(request.input.as_ref())?, servable);
    Ok(ClassificationResponse { result: Some(result), model_spec: Some(answered_by(servable, name)) })
}

pub fn regress(request: &RegressionRequest, servable: &Servable) -> Result<RegressionResponse, Failure> {
    let name = signature_name(request.model_spec.as_ref());
    let signature = SIGNATURES.get(name).ok_or_else(|| errors::no_example_signature(name))?;
    check_regress(signature)?;
    let result = regressions(&examples(request.input.as_ref())?, servable);
    Ok(RegressionResponse { result: Some(result), model_spec: Some(answered_by(servable, name)) })
}

pub fn multi_inference(
    request: &MultiInferenceRequest,
    servable: &Servable,
) -> Result<MultiInferenceResponse, Failure> {
    let mut seen = BTreeSet::new();
    let mut model = None;
    for task in &request.tasks {
        let spec = task.model_spec.as_ref().filter(|spec| !spec.name.is_empty());
        let spec = spec.ok_or_else(errors::task_without_name)?;
        if *model.get_or_insert(&spec.name) != &spec.name {
            return Err(errors::tasks_of_two_models());
        }
        let name = signature::name_or_default(&spec.signature_name);
        if !seen.insert(name) {
            return Err(errors::duplicate_task(name));
        }
        let signature = SIGNATURES.get(name).ok_or_else(|| errors::no_multi_inference_signature(name))?;
        match task.method_name.as_str() {
            CLASSIFY => check_classify(signature)?,
            REGRESS => check_regress(signature)?,
            other => return Err(errors::unsupported_task(other)),
        }
    }
    let examples = examples(request.input.as_ref())?;
    let results = request.tasks.iter().map(|task| InferenceResult {
        model_spec: Some(answered_by(servable, signature_name(task.model_spec.as_ref()))),
        result: Some(match task.method_name.as_str() {
            CLASSIFY => Inferred::ClassificationResult(classifications(&examples, servable)),
            _ => Inferred::RegressionResult(regressions(&examples, servable)),
        }),
    });
    Ok(MultiInferenceResponse { results: results.collect() })
}

fn check_classify(signature: &SignatureDef) -> Result<(), Failure> {
    let text = || signature::text(signature);
    if !signature.inputs.contains_key("inputs") {
        return Err(errors::not_for_examples("No classification inputs found in SignatureDef: ", &text()));
    }
    if !["classes", "scores"].iter().any(|key| signature.outputs.contains_key(*key)) {
        return Err(errors::not_for_examples(
            "Expected classification signature outputs to contain at least one of \"classes\" or \
             \"scores\". Signature was: ",
            &text(),
        ));
    }
    Ok(())
}

fn check_regress(signature: &SignatureDef) -> Result<(), Failure> {
    if signature.outputs.len() != 1 {
        return Err(errors::not_for_examples("Expected one output Tensor.", ""));
    }
    let text = || signature::text(signature);
    if !signature.inputs.contains_key("inputs") {
        return Err(errors::not_for_examples("No regression inputs found in SignatureDef: ", &text()));
    }
    if !signature.outputs.contains_key("outputs") {
        return Err(errors::not_for_examples("No regression outputs found in SignatureDef: ", &text()));
    }
    Ok(())
}

/// The x of every example; a missing feature is 0, the default that the models' parser has.
fn examples(input: Option<&Input>) -> Result<Vec<f32>, Failure> {
    let no_context = Example::default();
    let (examples, context) = match input.and_then(|input| input.kind.as_ref()) {
        None => return Err(errors::empty_input()),
        Some(Examples::ExampleList(list)) => (&list.examples, &no_context),
        Some(Examples::ExampleListWithContext(list)) => {
            (&list.examples, list.context.as_ref().unwrap_or(&no_context))
        }
    };
    if examples.is_empty() {
        return Err(errors::empty_input());
    }
    let x = |example| feature(example).or_else(|| feature(context)).unwrap_or(0.0);
    Ok(examples.iter().map(x).collect())
}

fn feature(example: &Example) -> Option<f32> {
    match example.features.as_ref()?.feature.get(FEATURE)?.kind.as_ref()? {
        FeatureKind::FloatList(list) => list.value.first().copied(),
        _ => None,
    }
}

fn classifications(examples: &[f32], servable: &Servable) -> ClassificationResult {
    let class = |&x: &f32| Class { label: LABEL.to_owned(), score: servable.answer(x) };
    let row = |x| Classifications { classes: vec![class(x)] };
    ClassificationResult { classifications: examples.iter().map(row).collect() }
}

fn regressions(examples: &[f32], servable: &Servable) -> RegressionResult {
    let row = |&x: &f32| Regression { value: servable.answer(x) };
    RegressionResult { regressions: examples.iter().map(row).collect() }
}

fn signature_name(spec: Option<&ModelSpec>) -> &str {
    signature::name_or_default(spec.map_or("", |spec| &spec.signature_name))
}

/// The spec that every answer bears: the version is always told, however it was asked for.
fn answered_by(servable: &Servable, signature: &str) -> ModelSpec {
    ModelSpec {
        name: servable.model.to_string(),
        version_choice: Some(VersionChoice::Version(Int64Value { value: servable.version })),
        signature_name: signature.to_owned(),
    }
}

impl Servable {
    /// What the model answers to one number.
    pub fn answer(&self, x: f32) -> f32 {
        self.a * x + self.b
    }
}
