//! The bytes of messages, as the official Python package (tensorflow-serving-api 2.x) serialises them.

use std::collections::BTreeMap;
use std::fmt::Debug;

use model_server::hex;
use model_server::messages::{
    Any, BytesList, Class, ClassificationRequest, ClassificationResponse, ClassificationResult,
    Classifications, DataType, Dim, Example, ExampleList, ExampleListWithContext, Examples, Feature,
    FeatureKind, Features, FloatList, GetModelMetadataRequest, GetModelMetadataResponse,
    GetModelStatusRequest, GetModelStatusResponse, InferenceResult, InferenceTask, Inferred, Input,
    Int64List, Int64Value, ModelConfigList, ModelConfigProto, ModelServerConfig, ModelSpec,
    ModelVersionStatus, MultiInferenceRequest, MultiInferenceResponse, PredictRequest, PredictResponse,
    Regression, RegressionRequest, RegressionResponse, RegressionResult, ReloadConfigRequest,
    ReloadConfigResponse, SignatureDef, SignatureDefMap, State, StatusProto, TensorInfo, TensorProto,
    TensorShapeProto, VersionChoice,
};
use prost::Message;

#[track_caller]
fn check<M: Message + Default + PartialEq + Debug>(message: &M, expected: &str) {
    let bytes = message.encode_to_vec();
    assert_eq!(hex(&bytes), expected, "{message:?}");
    assert_eq!(M::decode(bytes.as_slice()).unwrap(), *message);
}

fn named() -> ModelSpec {
    ModelSpec { name: "m".into(), signature_name: "s".into(), version_choice: None }
}

fn of_version(value: i64) -> ModelSpec {
    ModelSpec { version_choice: Some(VersionChoice::Version(Int64Value { value })), ..named() }
}

fn tensors(name: &str) -> BTreeMap<String, TensorProto> {
    [(name.to_owned(), TensorProto { dtype: DataType::Float.into(), ..TensorProto::default() })].into()
}

fn example() -> Example {
    let feature = |kind| Feature { kind: Some(kind) };
    let feature = [
        ("a".to_owned(), feature(FeatureKind::BytesList(BytesList { value: vec!["b".into()] }))),
        ("f".to_owned(), feature(FeatureKind::FloatList(FloatList { value: vec![1.5] }))),
        ("i".to_owned(), feature(FeatureKind::Int64List(Int64List { value: vec![7] }))),
    ];
    Example { features: Some(Features { feature: feature.into() }) }
}

fn input() -> Input {
    let list = ExampleList { examples: vec![example()] };
    Input { kind: Some(Examples::ExampleList(list)) }
}

#[test]
fn a_model_spec() {
    check(&of_version(5), "0a016d120208051a0173");
    let label = Some(VersionChoice::VersionLabel("canary".into()));
    // prost writes a oneof where its lowest field stands; the fields are the same in another order.
    let spec = ModelSpec { version_choice: label, ..named() };
    let official = b"\x0a\x01m\x1a\x01s\x22\x06canary";
    assert_eq!(ModelSpec::decode(&official[..]).unwrap(), spec);
    assert_eq!(spec.encoded_len(), official.len());
}

#[test]
fn a_tensor() {
    let dim = vec![Dim { size: 2, name: "rows".into() }, Dim { size: -1, name: String::new() }];
    let tensor = TensorProto {
        dtype: DataType::Float.into(),
        tensor_shape: Some(TensorShapeProto { dim, unknown_rank: false }),
        version_number: 2,
        tensor_content: b"\x01\x02"[..].into(),
        float_val: vec![1.5, 2.5],
        double_val: vec![3.5],
        int_val: vec![-4],
        string_val: vec!["five".into()],
        int64_val: vec![6],
        bool_val: vec![true],
        half_val: vec![8],
        uint32_val: vec![9],
        uint64_val: vec![10],
    };
    check(
        &tensor,
        "08011217120808021204726f7773120b08ffffffffffffffffff011802220201022a080000c03f0000204032080000000000\
         000c403a0afcffffffffffffffff014204666976655201065a01016a0108820101098a01010a",
    );
    check(&TensorShapeProto { unknown_rank: true, dim: Vec::new() }, "1801");
}

#[test]
fn predict() {
    let request = PredictRequest {
        model_spec: Some(of_version(0)),
        inputs: tensors("x"),
        output_filter: vec!["y".into()],
    };
    check(&request, "0a080a016d12001a017312070a0178120208011a0179");
    let response = PredictResponse { outputs: tensors("y"), model_spec: Some(of_version(1)) };
    check(&response, "0a070a017912020801120a0a016d120208011a0173");
}

#[test]
fn classify_and_regress() {
    let request = ClassificationRequest { model_spec: Some(named()), input: Some(input()) };
    check(
        &request,
        "0a060a016d1a0173122d0a2b0a290a270a0a0a016112050a030a01620a0d0a0166120812060a040000c03f0a0a0a01691205\
         1a030a0107",
    );
    let list = ExampleListWithContext { examples: vec![example()], context: Some(Example::default()) };
    let input = Some(Input { kind: Some(Examples::ExampleListWithContext(list)) });
    check(
        &RegressionRequest { model_spec: Some(named()), input },
        "0a060a016d1a0173122f122d0a290a270a0a0a016112050a030a01620a0d0a0166120812060a040000c03f0a0a0a01691205\
         1a030a01071200",
    );
    let classes = vec![Class { label: "y".into(), score: 2.5 }];
    let result = ClassificationResult { classifications: vec![Classifications { classes }] };
    let response = ClassificationResponse { result: Some(result), model_spec: Some(named()) };
    check(&response, "0a0c0a0a0a080a0179150000204012060a016d1a0173");
    let result = RegressionResult { regressions: vec![Regression { value: 2.5 }] };
    let response = RegressionResponse { result: Some(result), model_spec: Some(named()) };
    check(&response, "0a070a050d0000204012060a016d1a0173");
}

#[test]
fn multi_inference() {
    let tasks = vec![InferenceTask { model_spec: Some(named()), method_name: "w".into() }];
    check(
        &MultiInferenceRequest { tasks, input: Some(input()) },
        "0a0b0a060a016d1a0173120177122d0a2b0a290a270a0a0a016112050a030a01620a0d0a0166120812060a040000c03f0a0a\
         0a016912051a030a0107",
    );
    let regression = RegressionResult { regressions: vec![Regression { value: 2.5 }] };
    let classification = ClassificationResult { classifications: vec![Classifications::default()] };
    let results = vec![
        InferenceResult { model_spec: Some(named()), result: Some(Inferred::RegressionResult(regression)) },
        InferenceResult { model_spec: None, result: Some(Inferred::ClassificationResult(classification)) },
    ];
    check(&MultiInferenceResponse { results }, "0a110a060a016d1a01731a070a050d000020400a0412020a00");
}

#[test]
fn metadata() {
    let request =
        GetModelMetadataRequest { model_spec: Some(named()), metadata_field: vec!["signature_def".into()] };
    check(&request, "0a060a016d1a0173120d7369676e61747572655f646566");
    let any = Any { type_url: "t".into(), value: "v".into() };
    let metadata = [("signature_def".to_owned(), any)].into();
    check(
        &GetModelMetadataResponse { model_spec: Some(named()), metadata },
        "0a060a016d1a017312170a0d7369676e61747572655f64656612060a0174120176",
    );
    let shape = TensorShapeProto { unknown_rank: true, dim: Vec::new() };
    let x = TensorInfo { name: "x:0".into(), dtype: DataType::Float.into(), tensor_shape: Some(shape) };
    let y = TensorInfo { name: "y:0".into(), ..TensorInfo::default() };
    let signature = SignatureDef {
        inputs: [("x".to_owned(), x)].into(),
        outputs: [("y".to_owned(), y)].into(),
        method_name: "p".into(),
    };
    let map = SignatureDefMap { signature_def: [("s".to_owned(), signature)].into() };
    check(&map, "0a260a017312210a100a0178120b0a03783a3010011a021801120a0a017912050a03793a301a0170");
}

#[test]
fn status_and_reload() {
    check(&GetModelStatusRequest { model_spec: Some(named()) }, "0a060a016d1a0173");
    let status = StatusProto { error_code: 5, error_message: "e".into() };
    let version = ModelVersionStatus { version: 3, state: State::Available.into(), status: Some(status) };
    check(&GetModelStatusResponse { model_version_status: vec![version] }, "0a0b0803101e1a050805120165");
    let model = ModelConfigProto {
        name: "m".into(),
        base_path: "/b".into(),
        model_platform: "tensorflow".into(),
        version_labels: [("l".to_owned(), 1)].into(),
    };
    let list = ModelConfigList { config: vec![model] };
    let config = ModelServerConfig { model_config_list: Some(list) };
    check(
        &ReloadConfigRequest { config: Some(config) },
        "0a1e0a1c0a1a0a016d12022f62220a74656e736f72666c6f7742050a016c1001",
    );
    let status = StatusProto { error_code: 9, error_message: "e".into() };
    check(&ReloadConfigResponse { status: Some(status) }, "0a050809120165");
}
