//! One request of whatever method: decoded, resolved to the version that answers it, run.

use bytes::Bytes;
use prost::Message;
use tonic::Code;

use crate::errors::{self, Failure};
use crate::inference;
use crate::messages::{
    Any, ClassificationRequest, GetModelMetadataRequest, GetModelMetadataResponse, GetModelStatusRequest,
    GetModelStatusResponse, Int64Value, ModelSpec, MultiInferenceRequest, PredictRequest, RegressionRequest,
    ReloadConfigRequest, SignatureDefMap, VersionChoice,
};
use crate::rpc::Rpc;
use crate::servable::{Servable, Servables};
use crate::signature::SIGNATURES;

/// The one metadata field that GetModelMetadata knows.
pub const SIGNATURE_DEF: &str = "signature_def";

/// A decoded request.
#[derive(Clone, Debug)]
pub enum Call {
    Predict(PredictRequest),
    Classify(ClassificationRequest),
    Regress(RegressionRequest),
    MultiInference(MultiInferenceRequest),
    GetModelMetadata(GetModelMetadataRequest),
    GetModelStatus(GetModelStatusRequest),
    HandleReloadConfigRequest(ReloadConfigRequest),
}

impl Call {
    pub fn decode(rpc: Rpc, message: Bytes) -> Result<Self, Failure> {
        let call = match rpc {
            Rpc::Predict => PredictRequest::decode(message).map(Self::Predict),
            Rpc::Classify => ClassificationRequest::decode(message).map(Self::Classify),
            Rpc::Regress => RegressionRequest::decode(message).map(Self::Regress),
            Rpc::MultiInference => MultiInferenceRequest::decode(message).map(Self::MultiInference),
            Rpc::GetModelMetadata => GetModelMetadataRequest::decode(message).map(Self::GetModelMetadata),
            Rpc::GetModelStatus => GetModelStatusRequest::decode(message).map(Self::GetModelStatus),
            Rpc::HandleReloadConfigRequest => {
                ReloadConfigRequest::decode(message).map(Self::HandleReloadConfigRequest)
            }
        };
        call.map_err(|_| errors::undecodable())
    }

    /// The spec that selects the servable; of several tasks it is the first one's.
    fn model_spec(&self) -> Result<Option<&ModelSpec>, Failure> {
        let spec = match self {
            Self::Predict(request) => &request.model_spec,
            Self::Classify(request) => &request.model_spec,
            Self::Regress(request) => &request.model_spec,
            Self::GetModelMetadata(request) => &request.model_spec,
            Self::GetModelStatus(request) => &request.model_spec,
            Self::MultiInference(request) => {
                let spec = request.tasks.first().and_then(|task| task.model_spec.as_ref());
                return spec.map(Some).ok_or_else(errors::no_name);
            }
            Self::HandleReloadConfigRequest(_) => return Ok(None),
        };
        spec.as_ref().map(Some).ok_or_else(errors::missing_model_spec)
    }

    /// The model that is asked for, if the request names one.
    pub fn model(&self) -> Option<&str> {
        if let Self::HandleReloadConfigRequest(request) = self {
            let list = request.config.as_ref()?.model_config_list.as_ref()?;
            return list.config.first().map(|config| config.name.as_str());
        }
        self.model_spec().ok().flatten().map(|spec| spec.name.as_str())
    }

    /// The version that answers; none for what is answered without one.
    pub fn resolve(&self, servables: &Servables) -> Result<Option<Servable>, Failure> {
        let Some(spec) = self.model_spec()? else { return Ok(None) };
        if let Self::GetModelMetadata(request) = self {
            check_metadata_fields(&request.metadata_field)?;
        }
        if matches!(self, Self::GetModelStatus(_)) {
            return Ok(None);
        }
        servables.resolve(spec).map(Some)
    }

    /// Runs the request on the version that [`Call::resolve`] found, and encodes the answer.
    pub fn run(&self, servables: &Servables, servable: Option<&Servable>) -> Result<Vec<u8>, Failure> {
        match (self, servable) {
            (Self::Predict(request), Some(servable)) => {
                inference::predict(request, servable).map(|response| response.encode_to_vec())
            }
            (Self::Classify(request), Some(servable)) => {
                inference::classify(request, servable).map(|response| response.encode_to_vec())
            }
            (Self::Regress(request), Some(servable)) => {
                inference::regress(request, servable).map(|response| response.encode_to_vec())
            }
            (Self::MultiInference(request), Some(servable)) => {
                inference::multi_inference(request, servable).map(|response| response.encode_to_vec())
            }
            (Self::GetModelMetadata(_), Some(servable)) => Ok(metadata(servable).encode_to_vec()),
            (Self::GetModelStatus(request), _) => {
                let spec = request.model_spec.as_ref().ok_or_else(errors::missing_model_spec)?;
                let model_version_status = servables.status(spec)?;
                Ok(GetModelStatusResponse { model_version_status }.encode_to_vec())
            }
            // Nothing may reconfigure this server over the wire; that the call came is counted.
            (Self::HandleReloadConfigRequest(_), _) => Err(Failure::new(
                Code::Unimplemented,
                "this server does not reload its configuration over the wire",
            )),
            (_, None) => Err(errors::missing_model_spec()),
        }
    }
}

fn check_metadata_fields(fields: &[String]) -> Result<(), Failure> {
    if fields.is_empty() {
        return Err(errors::no_metadata_field());
    }
    let unknown = fields.iter().find(|field| *field != SIGNATURE_DEF);
    unknown.map_or(Ok(()), |field| Err(errors::unknown_metadata_field(field)))
}

fn metadata(servable: &Servable) -> GetModelMetadataResponse {
    let signatures = SignatureDefMap { signature_def: SIGNATURES.clone() };
    let packed =
        Any { type_url: SignatureDefMap::TYPE_URL.to_owned(), value: signatures.encode_to_vec().into() };
    GetModelMetadataResponse {
        model_spec: Some(ModelSpec {
            name: servable.model.to_string(),
            version_choice: Some(VersionChoice::Version(Int64Value { value: servable.version })),
            signature_name: String::new(),
        }),
        metadata: [(SIGNATURE_DEF.to_owned(), packed)].into(),
    }
}
