//! What names a Deployment, a ConfigMap, a port or labels names something that is there.

use serde_json::Value;

use super::{Together, selects};
use crate::Fault;
use crate::object::{Object, list, text};

pub fn check(together: &Together<'_>, faults: &mut Vec<Fault>) {
    let pods: Vec<Pods<'_>> = together.of_kind("Deployment").map(Pods).collect();
    for object in together.objects {
        let mut fault = |problem: String| faults.push(Fault::new(object.place(), problem));
        let selector = match object.kind() {
            "Service" => object.value.pointer("/spec/selector"),
            "PodDisruptionBudget" => object.value.pointer("/spec/selector/matchLabels"),
            "NetworkPolicy" => object.value.pointer("/spec/podSelector/matchLabels"),
            "Deployment" => object.value.pointer("/spec/selector/matchLabels"),
            _ => None,
        };
        let selected: Vec<_> = pods.iter().filter(|pods| pods.are(object.namespace(), selector)).collect();
        if selector.is_some() && selected.is_empty() {
            fault("selects no pods of any Deployment".to_owned());
        }
        match object.kind() {
            "Service" => {
                for port in object.list("/spec/ports").iter().map(|port| text(port, "/targetPort")) {
                    for pods in selected.iter().filter(|pods| !pods.has_port(port)) {
                        fault(format!("targetPort {port}: {} has no such port", pods.0.place()));
                    }
                }
            }
            "DestinationRule" => {
                for subset in object.list("/spec/subsets") {
                    if !pods.iter().any(|pods| pods.are(object.namespace(), subset.get("labels"))) {
                        fault(format!("subset {}: its labels select no pods", text(subset, "/name")));
                    }
                }
            }
            "ScaledObject" | "HorizontalPodAutoscaler" => {
                let name = object.text("/spec/scaleTargetRef/name");
                if together.named("Deployment", object.namespace(), name).is_none() {
                    fault(format!("spec.scaleTargetRef: there is no Deployment {name}"));
                }
            }
            "Deployment" => {
                for volume in object.list("/spec/template/spec/volumes") {
                    let config = text(volume, "/configMap/name");
                    if !config.is_empty() && together.named("ConfigMap", object.namespace(), config).is_none()
                    {
                        fault(format!("volumes: there is no ConfigMap {config}"));
                    }
                }
                let scalers = ["ScaledObject", "HorizontalPodAutoscaler"];
                let of_this = |scaler: &&Object| scaler.text("/spec/scaleTargetRef/name") == object.name();
                let scalers =
                    scalers.into_iter().flat_map(|kind| together.of_kind(kind)).filter(of_this).count();
                if 1 < scalers {
                    fault(format!("{scalers} autoscalers set its replicas, expected one"));
                }
            }
            _ => (),
        }
    }
}

/// The pods of a Deployment.
struct Pods<'a>(&'a Object);

impl Pods<'_> {
    fn are(&self, namespace: &str, selector: Option<&Value>) -> bool {
        self.0.namespace() == namespace
            && selects(selector, self.0.value.pointer("/spec/template/metadata/labels"))
    }

    fn has_port(&self, name: &str) -> bool {
        let containers = self.0.list("/spec/template/spec/containers").iter();
        containers.flat_map(|container| list(container, "/ports")).any(|port| text(port, "/name") == name)
    }
}
