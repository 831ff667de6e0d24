//! Every error of TensorFlow Serving that applies here, with its code and its text to the letter.

use std::fmt::Debug;

use model_server::Code::{self, FailedPrecondition, Internal, InvalidArgument, NotFound, Unimplemented};
use model_server::client::{
    Asked, Client, classify_request, metadata_request, model_spec, multi_inference_request, predict_request,
    predict_tensor, regress_request, status_request,
};
use model_server::messages::{DataType, PredictRequest, TensorProto};
use model_server::{Rpc, tensor};
use prost::Message;

use crate::pair;

struct Table {
    client: Client,
}

impl Table {
    async fn check(&self, rpc: Rpc, request: &(impl Message + Debug), code: Code, text: &str) {
        let reply = self.client.call(rpc.path(), &request.encode_to_vec()).await.unwrap();
        assert_eq!((reply.code(), reply.text.as_str()), (code, text), "{rpc:?} {request:?}");
        assert!(reply.trailers_only, "{rpc:?} {request:?}");
    }
}

fn resnet() -> PredictRequest {
    predict_request("resnet", Asked::Latest, &[1.0])
}

#[tokio::test]
async fn what_is_wrong_with_a_model_spec() {
    let (server, client) = pair().await;
    let table = Table { client };
    let it = PredictRequest { model_spec: None, ..resnet() };
    table.check(Rpc::Predict, &it, InvalidArgument, "Missing ModelSpec").await;
    let mut it = classify_request("resnet", Asked::Latest, &[1.0]);
    it.model_spec = None;
    table.check(Rpc::Classify, &it, InvalidArgument, "Missing ModelSpec").await;
    table.check(Rpc::Regress, &it, InvalidArgument, "Missing ModelSpec").await;
    table
        .check(Rpc::GetModelMetadata, &PredictRequest::default(), InvalidArgument, "Missing ModelSpec")
        .await;
    table.check(Rpc::GetModelStatus, &PredictRequest::default(), InvalidArgument, "Missing ModelSpec").await;
    let unnamed = "ModelSpec has no name specified.";
    table.check(Rpc::MultiInference, &PredictRequest::default(), InvalidArgument, unnamed).await;

    for (model, asked, code, text) in [
        ("", Asked::Latest, InvalidArgument, unnamed),
        ("", Asked::Label("x"), InvalidArgument, unnamed),
        ("nope", Asked::Latest, NotFound, "Servable not found for request: Latest(nope)"),
        ("nope", Asked::Version(3), NotFound, "Servable not found for request: Specific(nope, 3)"),
        ("nope", Asked::Label("x"), InvalidArgument, "Unrecognized servable version label: x"),
        ("resnet", Asked::Version(3), NotFound, "Servable not found for request: Specific(resnet, 3)"),
        ("resnet", Asked::Version(0), NotFound, "Servable not found for request: Specific(resnet, 0)"),
        ("resnet", Asked::Version(-1), NotFound, "Servable not found for request: Specific(resnet, -1)"),
        ("resnet", Asked::Label("x"), InvalidArgument, "Unrecognized servable version label: x"),
        ("resnet", Asked::Label("gone"), NotFound, "Servable not found for request: Specific(resnet, 9)"),
        ("Resnet", Asked::Latest, NotFound, "Servable not found for request: Latest(Resnet)"),
        ("a\u{e9}%\n", Asked::Latest, NotFound, "Servable not found for request: Latest(a\u{e9}%\n)"),
    ] {
        table.check(Rpc::Predict, &predict_request(model, asked, &[1.0]), code, text).await;
        table.check(Rpc::Classify, &classify_request(model, asked, &[1.0]), code, text).await;
        table.check(Rpc::Regress, &regress_request(model, asked, &[1.0]), code, text).await;
        table.check(Rpc::MultiInference, &multi_inference_request(model, asked, &[1.0]), code, text).await;
        table.check(Rpc::GetModelMetadata, &metadata_request(model, asked), code, text).await;
    }
    server.unload("resnet", 2);
    let text = "Servable not found for request: Specific(resnet, 2)";
    table.check(Rpc::Predict, &predict_request("resnet", Asked::Version(2), &[1.0]), NotFound, text).await;
    table
        .check(Rpc::Predict, &predict_request("resnet", Asked::Label("canary"), &[1.0]), NotFound, text)
        .await;
    assert_eq!(server.counts().total(), 0);
}

#[tokio::test]
async fn what_is_wrong_with_a_signature() {
    let (_server, client) = pair().await;
    let table = Table { client };
    let spec = |signature| Some(model_spec("resnet", Asked::Latest, signature));
    let it = PredictRequest { model_spec: spec("s"), ..resnet() };
    table.check(Rpc::Predict, &it, FailedPrecondition, "Serving signature key \"s\" not found.").await;
    let mut it = classify_request("resnet", Asked::Latest, &[1.0]);
    it.model_spec = spec("s");
    table.check(Rpc::Classify, &it, InvalidArgument, "No signature was found with the name: s").await;
    table.check(Rpc::Regress, &it, InvalidArgument, "No signature was found with the name: s").await;
    it.model_spec = spec("classify_x_to_y");
    table.check(Rpc::Regress, &it, InvalidArgument, "Expected one output Tensor.").await;
    it.model_spec = spec("");
    let text = "No classification inputs found in SignatureDef: inputs {\n  key: \"x\"\n  value {\n    name: \
                \"x:0\"\n    dtype: DT_FLOAT\n    tensor_shape {\n      unknown_rank: true\n    }\n  }\n}\n\
                outputs {\n  key: \"y\"\n  value {\n    name: \"y:0\"\n    dtype: DT_FLOAT\n    tensor_shape \
                {\n      unknown_rank: true\n    }\n  }\n}\nmethod_name: \"tensorflow/serving/predict\"\n";
    table.check(Rpc::Classify, &it, InvalidArgument, text).await;
}

#[tokio::test]
async fn what_is_wrong_with_the_inputs_and_outputs_of_a_predict() {
    let (server, client) = pair().await;
    let table = Table { client };
    let check = async |it: &PredictRequest, text: &str| {
        table.check(Rpc::Predict, it, InvalidArgument, text).await;
    };
    let tensor = || tensor::floats(&[1], vec![1.0]);
    let with = |inputs: &[&str]| PredictRequest {
        inputs: inputs.iter().map(|&name| (name.to_owned(), tensor())).collect(),
        ..resnet()
    };
    check(
        &with(&[]),
        "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: \
         {x}.",
    )
    .await;
    check(
        &with(&["a", "x", "b"]),
        "input size does not match signature: 3!=1 len({a,b,x}) != len({x}). Sent extra: {a,b}. Missing but \
         required: {}.",
    )
    .await;
    check(
        &with(&["z"]),
        "Signature input alias: x(feed name: x:0) not found in request and no default value provided. Inputs \
         expected to be in the request {z}, or default input alias set: ",
    )
    .await;

    let of = |tensor: TensorProto| predict_tensor("resnet", Asked::Latest, tensor);
    check(&of(tensor::float_content(&[2], &[1.0])), "tensor parsing error: x").await;
    check(&of(tensor::floats(&[-2], vec![1.0])), "tensor parsing error: x").await;
    check(&of(TensorProto::default()), "tensor parsing error: x").await;
    let typed = |dtype: DataType| of(TensorProto { dtype: dtype.into(), ..tensor::floats(&[1], vec![]) });
    check(&typed(DataType::Double), "Expects arg[0] to be float but double is provided").await;
    check(&typed(DataType::Int64), "Expects arg[0] to be float but int64 is provided").await;
    check(&typed(DataType::String), "Expects arg[0] to be float but string is provided").await;

    let filter = |filter: &[&str]| PredictRequest {
        output_filter: filter.iter().map(|&name| name.to_owned()).collect(),
        ..resnet()
    };
    check(
        &filter(&["z"]),
        "output tensor alias not found in signature: z Outputs expected to be in the set {y}.",
    )
    .await;
    check(&filter(&["y", "y"]), "duplicate output tensor alias: y").await;
    assert_eq!(server.counts().total(), 0);
    assert!(table.client.predict(&filter(&["y"])).await.unwrap().ok().is_ok());
}

#[tokio::test]
async fn what_is_wrong_with_examples_and_tasks() {
    let (server, client) = pair().await;
    let table = Table { client };
    let empty = "Input is empty.";
    let mut it = classify_request("resnet", Asked::Latest, &[]);
    table.check(Rpc::Classify, &it, InvalidArgument, empty).await;
    it.input = None;
    table.check(Rpc::Classify, &it, InvalidArgument, empty).await;
    table.check(Rpc::Regress, &regress_request("resnet", Asked::Latest, &[]), InvalidArgument, empty).await;

    let tasks = || multi_inference_request("resnet", Asked::Latest, &[1.0]);
    let mut it = multi_inference_request("resnet", Asked::Latest, &[]);
    table.check(Rpc::MultiInference, &it, InvalidArgument, empty).await;
    it.tasks.clear();
    table.check(Rpc::MultiInference, &it, InvalidArgument, "ModelSpec has no name specified.").await;
    let mut it = tasks();
    it.tasks[1].model_spec = Some(model_spec("bert", Asked::Latest, "classify_x_to_y"));
    let text = "All ModelSpecs in a MultiInferenceRequest must access the same model name.";
    table.check(Rpc::MultiInference, &it, InvalidArgument, text).await;
    it.tasks[1].model_spec = None;
    let text = "Found ModelSpec with an empty model name.";
    table.check(Rpc::MultiInference, &it, InvalidArgument, text).await;
    let mut it = tasks();
    it.tasks[1] = it.tasks[0].clone();
    let text = "Duplicate evaluation of signature: regress_x_to_y";
    table.check(Rpc::MultiInference, &it, InvalidArgument, text).await;
    let mut it = tasks();
    it.tasks[0].model_spec = Some(model_spec("resnet", Asked::Latest, "s"));
    let text = "Requested signature not found in model graph: s";
    table.check(Rpc::MultiInference, &it, InvalidArgument, text).await;
    let mut it = tasks();
    it.tasks[0].method_name = "tensorflow/serving/predict".to_owned();
    let text = "Unsupported signature method_name: tensorflow/serving/predict";
    table.check(Rpc::MultiInference, &it, Unimplemented, text).await;
    assert_eq!(server.counts().total(), 0);
}

#[tokio::test]
async fn what_is_wrong_with_questions_about_a_model() {
    let (_server, client) = pair().await;
    let table = Table { client };
    let mut it = metadata_request("resnet", Asked::Latest);
    it.metadata_field = vec!["signature_def".to_owned(), "graph".to_owned()];
    table.check(Rpc::GetModelMetadata, &it, InvalidArgument, "Metadata field graph is not supported").await;
    it.metadata_field.clear();
    let text = "GetModelMetadataRequest must specify at least one metadata_field";
    table.check(Rpc::GetModelMetadata, &it, InvalidArgument, text).await;
    let it = status_request("resnet", Asked::Version(5));
    table.check(Rpc::GetModelStatus, &it, NotFound, "Could not find version 5 of model resnet").await;
    let it = status_request("nope", Asked::Latest);
    table.check(Rpc::GetModelStatus, &it, NotFound, "Could not find any versions of model nope").await;
}

#[tokio::test]
async fn what_is_no_message_is_an_internal_error_without_a_text() {
    let (server, client) = pair().await;
    for body in [&b"\x0a"[..], b"\x0a\x05ab", b"\x0a\x03\x0a\x01\xff", b"\x0b", b"\xff\xff\xff\xff\xff\xff"] {
        let reply = client.call(Rpc::Predict.path(), body).await.unwrap();
        assert_eq!((reply.code(), reply.text.as_str()), (Internal, ""), "{body:?}");
    }
    for body in [&b""[..], b"\x00\x00", b"\x00\x00\x00\x00\x09\x0a"] {
        let reply = client.send(Rpc::Predict.path(), Some("application/grpc"), body).await.unwrap();
        assert_eq!((reply.code(), reply.text.as_str()), (Internal, ""), "{body:?}");
    }
    assert_eq!(server.counts().arrived.total(), 0);
}

#[tokio::test]
async fn methods_that_are_not_served_are_unimplemented() {
    let (server, client) = pair().await;
    for path in [
        "/tensorflow.serving.SessionService/SessionRun",
        "/tensorflow.serving.PredictionService/PredictStreamed",
        "/grpc.health.v1.Health/Check",
        "/tensorflow.serving.PredictionService/predict",
    ] {
        assert_eq!(client.call(path, b"").await.unwrap().code(), Unimplemented, "{path}");
    }
    assert_eq!(server.counts().unknown, 4);
}

#[tokio::test]
async fn a_reload_is_refused_and_counted() {
    let (server, client) = pair().await;
    let reply = client.reload_config(&model_server::messages::ReloadConfigRequest::default()).await.unwrap();
    assert_eq!(reply.code(), Unimplemented);
    assert_eq!(server.counts().arrived.of(Rpc::HandleReloadConfigRequest), 1);
}

#[tokio::test]
async fn long_messages_are_cut() {
    let (_server, client) = pair().await;
    let name = "n".repeat(2000);
    let reply = client.predict(&predict_request(&name, Asked::Latest, &[1.0])).await.unwrap();
    let whole = format!("Servable not found for request: Latest({name})");
    assert_eq!(reply.text, format!("{}...TRUNCATED", &whole[..1024]));
    assert_eq!(reply.code(), NotFound);
}
