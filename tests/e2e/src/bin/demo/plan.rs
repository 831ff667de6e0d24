//! What the configuration says of a request, read from the configuration itself.

use model_server::client::Asked;
use serde_json::Value;

/// One request of the demo.
#[derive(Clone, Copy)]
pub struct Ask {
    pub words: &'static str,
    pub asked: Asked<'static>,
    /// The REST path that asks for the same.
    pub path: &'static str,
}

pub const ASKS: [Ask; 4] = [
    Ask { words: "version 1", asked: Asked::Version(1), path: "/v1/models/resnet/versions/1:predict" },
    Ask { words: "version 2", asked: Asked::Version(2), path: "/v1/models/resnet/versions/2:predict" },
    Ask {
        words: "label canary",
        asked: Asked::Label("canary"),
        path: "/v1/models/resnet/labels/canary:predict",
    },
    Ask { words: "latest", asked: Asked::Latest, path: "/v1/models/resnet:predict" },
];

/// The target of the first route that takes the request.
pub fn target<'a>(configuration: &'a Value, asked: Asked<'_>) -> Option<&'a str> {
    let takes = |route: &&Value| {
        let wanted = |key| route["match"][key].as_str();
        match asked {
            Asked::Version(version) => {
                wanted("version").is_none_or(|it| it == version.to_string()) && wanted("label").is_none()
            }
            Asked::Label(label) => {
                wanted("label").is_none_or(|it| it == label) && wanted("version").is_none()
            }
            Asked::Latest => route["match"].is_null(),
        }
    };
    configuration["models"][0]["routes"].as_array()?.iter().find(takes)?["split"][0]["target"].as_str()
}

/// The pool, 0 or 1, that answers for a target while all hosts are healthy.
pub fn pool(configuration: &Value, target: &str) -> usize {
    usize::from(configuration["models"][0]["targets"][target]["cluster"] == "tfs-v2")
}
