//! The numbers and the model_spec of answers.

use model_server::client::{
    Asked, classify_request, metadata_request, model_spec, multi_inference_request, predict_content_request,
    predict_request, predict_tensor, regress_request, status_request,
};
use model_server::messages::{
    Example, ExampleListWithContext, Examples, Inferred, Input, SignatureDefMap, State, VersionChoice,
};
use model_server::{ModelConfig, ServerConfig, VersionConfig, start, tensor};
use prost::Message;

use crate::pair;

#[tokio::test]
async fn each_version_adds_its_own_number() {
    let (_server, client) = pair().await;
    for (asked, version, expected) in [
        (Asked::Version(1), 1, [2.5, 3.0, 4.5]),
        (Asked::Version(2), 2, [3.5, 4.0, 5.5]),
        (Asked::Label("stable"), 1, [2.5, 3.0, 4.5]),
        (Asked::Label("canary"), 2, [3.5, 4.0, 5.5]),
        (Asked::Latest, 2, [3.5, 4.0, 5.5]),
    ] {
        let x = [1.0, 2.0, 5.0];
        for request in [predict_request("resnet", asked, &x), predict_content_request("resnet", asked, &x)] {
            let response = client.predict(&request).await.unwrap().ok().unwrap();
            assert_eq!(response.values(), expected, "{asked:?}");
            let spec = response.model_spec.as_ref().unwrap();
            assert_eq!((spec.name.as_str(), spec.signature_name.as_str()), ("resnet", "serving_default"));
            assert_eq!(spec.version(), Some(version), "{asked:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_names_the_signature_that_ran() {
    let (_server, client) = pair().await;
    for (asked, expected) in [("", "serving_default"), ("predict_x_to_y", "predict_x_to_y")] {
        let mut request = predict_request("resnet", Asked::Version(1), &[1.0]);
        request.model_spec = Some(model_spec("resnet", Asked::Version(1), asked));
        let response = client.predict(&request).await.unwrap().ok().unwrap();
        assert_eq!(response.values(), [2.5]);
        assert_eq!(response.model_spec.unwrap().signature_name, expected);
    }
}

#[tokio::test]
async fn an_answer_has_the_shape_of_the_question() {
    let (_server, client) = pair().await;
    for (shape, values) in
        [(vec![], vec![4.0]), (vec![2, 1], vec![4.0, 6.0]), (vec![0], vec![]), (vec![1, 3], vec![4.0; 3])]
    {
        let tensor = tensor::floats(&shape, values.clone());
        let request = predict_tensor("resnet", Asked::Version(1), tensor.clone());
        let response = client.predict(&request).await.unwrap().ok().unwrap();
        assert_eq!(response.outputs["y"].tensor_shape, tensor.tensor_shape, "{shape:?}");
        assert_eq!(response.values(), values.iter().map(|x| 0.5 * x + 2.0).collect::<Vec<_>>(), "{shape:?}");
    }
}

#[tokio::test]
async fn one_value_stands_for_a_whole_shape() {
    let (_server, client) = pair().await;
    let request = predict_tensor("resnet", Asked::Version(1), tensor::floats(&[2, 2], vec![8.0]));
    let response = client.predict(&request).await.unwrap().ok().unwrap();
    assert_eq!(response.values(), [6.0; 4]);
}

#[tokio::test]
async fn a_version_may_have_numbers_of_its_own() {
    let model = ModelConfig {
        name: "m".to_owned(),
        versions: vec![VersionConfig { version: 5, a: -3.0, b: 0.25 }],
        labels: [].into(),
    };
    let server = start(ServerConfig::new(vec![model])).await.unwrap();
    let client = model_server::client::Client::connect(server.grpc_addr()).await.unwrap();
    let reply = client.predict(&predict_request("m", Asked::Latest, &[2.0])).await.unwrap();
    assert_eq!(reply.ok().unwrap().values(), [-5.75]);
}

#[tokio::test]
async fn compressed_messages_are_read() {
    let (_server, client) = pair().await;
    let reply = client.with_gzip().predict(&predict_request("resnet", Asked::Latest, &[1.0])).await.unwrap();
    assert_eq!(reply.ok().unwrap().values(), [3.5]);
}

#[tokio::test]
async fn classify_and_regress_answer_a_number_for_each_example() {
    let (_server, client) = pair().await;
    let asked = Asked::Label("stable");
    let reply = client.classify(&classify_request("resnet", asked, &[1.0, 2.0])).await.unwrap();
    let response = reply.ok().unwrap();
    let classes: Vec<_> = response.result.unwrap().classifications;
    let scores: Vec<_> =
        classes.iter().map(|row| (row.classes[0].label.as_str(), row.classes[0].score)).collect();
    assert_eq!(scores, [("y", 2.5), ("y", 3.0)]);
    assert_eq!(response.model_spec.unwrap().version(), Some(1));

    let reply = client.regress(&regress_request("resnet", Asked::Latest, &[1.0, 2.0])).await.unwrap();
    let response = reply.ok().unwrap();
    let values: Vec<_> = response.result.unwrap().regressions.iter().map(|row| row.value).collect();
    assert_eq!(values, [3.5, 4.0]);
    let spec = response.model_spec.unwrap();
    assert_eq!((spec.version(), spec.signature_name.as_str()), (Some(2), "regress_x_to_y"));
}

#[tokio::test]
async fn an_examples_own_feature_comes_before_the_contexts() {
    let (_server, client) = pair().await;
    let list = ExampleListWithContext {
        examples: vec![Example::default(), Example::number("x", 4.0)],
        context: Some(Example::number("x", 10.0)),
    };
    let mut request = regress_request("resnet", Asked::Version(1), &[]);
    request.input = Some(Input { kind: Some(Examples::ExampleListWithContext(list)) });
    let response = client.regress(&request).await.unwrap().ok().unwrap();
    let values: Vec<_> = response.result.unwrap().regressions.iter().map(|row| row.value).collect();
    assert_eq!(values, [7.0, 4.0]);
}

#[tokio::test]
async fn multi_inference_answers_its_tasks_in_order() {
    let (_server, client) = pair().await;
    let request = multi_inference_request("resnet", Asked::Version(1), &[1.0]);
    let results = client.multi_inference(&request).await.unwrap().ok().unwrap().results;
    assert_eq!(results.len(), 2);
    let Some(Inferred::RegressionResult(regression)) = &results[0].result else { panic!("{results:?}") };
    assert!((regression.regressions[0].value - 2.5).abs() < f32::EPSILON);
    let Some(Inferred::ClassificationResult(classes)) = &results[1].result else { panic!("{results:?}") };
    assert!((classes.classifications[0].classes[0].score - 2.5).abs() < f32::EPSILON);
    assert!(results.iter().all(|result| result.model_spec.as_ref().unwrap().version() == Some(1)));
}

#[tokio::test]
async fn metadata_is_the_map_of_signatures() {
    let (_server, client) = pair().await;
    let reply = client.get_model_metadata(&metadata_request("resnet", Asked::Latest)).await.unwrap();
    let response = reply.ok().unwrap();
    assert_eq!(response.model_spec.unwrap().version(), Some(2));
    let any = &response.metadata["signature_def"];
    assert_eq!(any.type_url, "type.googleapis.com/tensorflow.serving.SignatureDefMap");
    let signatures = SignatureDefMap::decode(any.value.clone()).unwrap().signature_def;
    let names: Vec<_> = signatures.keys().map(String::as_str).collect();
    assert_eq!(names, ["classify_x_to_y", "predict_x_to_y", "regress_x_to_y", "serving_default"]);
    assert_eq!(signatures["serving_default"].inputs["x"].name, "x:0");
}

#[tokio::test]
async fn status_tells_the_state_of_every_version_the_newest_first() {
    let (server, client) = pair().await;
    server.unload("resnet", 1);
    let reply = client.get_model_status(&status_request("resnet", Asked::Latest)).await.unwrap();
    let versions = reply.ok().unwrap().model_version_status;
    let states: Vec<_> = versions.iter().map(|status| (status.version, status.state())).collect();
    assert_eq!(states, [(2, State::Available), (1, State::End)]);
    let reply = client.get_model_status(&status_request("resnet", Asked::Version(1))).await.unwrap();
    assert_eq!(reply.ok().unwrap().model_version_status.len(), 1);
}

/// Bytes as a protobuf library writes them, by hand: field numbers and presence are the contract.
#[tokio::test]
async fn the_wire_is_tensorflow_servings() {
    let (_server, client) = pair().await;
    let x = b"\x12\x13\x0a\x01x\x12\x0e\x08\x01\x12\x04\x12\x02\x08\x01\x2a\x04\x00\x00\x80\x3f";
    let predict = "/tensorflow.serving.PredictionService/Predict";
    let version_0 = [&b"\x0a\x0a\x0a\x06resnet\x12\x00"[..], x].concat();
    let reply = client.call(predict, &version_0).await.unwrap();
    assert_eq!(reply.text, "Servable not found for request: Specific(resnet, 0)");

    let version_1 = [&b"\x0a\x0c\x0a\x06resnet\x12\x02\x08\x01"[..], x].concat();
    let reply = client.call(predict, &version_1).await.unwrap();
    let y = b"\x0a\x13\x0a\x01y\x12\x0e\x08\x01\x12\x04\x12\x02\x08\x01\x2a\x04\x00\x00\x20\x40";
    let spec = b"\x12\x1d\x0a\x06resnet\x12\x02\x08\x01\x1a\x0fserving_default";
    assert_eq!(reply.ok().unwrap(), [&y[..], spec].concat());
}

#[tokio::test]
async fn a_version_choice_is_the_last_that_was_written() {
    let spec = b"\x0a\x06resnet\x12\x02\x08\x01\x22\x06canary";
    let spec = model_server::messages::ModelSpec::decode(&spec[..]).unwrap();
    assert_eq!(spec.version_choice, Some(VersionChoice::VersionLabel("canary".to_owned())));
}
