//! Why a request went where it went, in one line.

use std::fmt::Write as _;

use super::decide::{Decision, asked};
use crate::identity::ModelSpec;
use crate::policy::Policy;
use crate::verdict::{Reason, escape};

/// The value of the decision header: `model=resnet;asked=latest;route=rollout;target=canary;reason=split`.
pub fn header(
    policy: &Policy,
    spec: &ModelSpec,
    decision: Option<Decision>,
    refusal: Option<Reason>,
) -> String {
    let model = decision.and_then(|it| it.model).and_then(|it| policy.models.get(it.0 as usize));
    let route = decision.and_then(|it| it.route);
    let target = decision.and_then(|it| it.target);
    let mut text = format!("model={};asked={}", escape(&spec.name), asked(&spec.asked));
    if let (Some(model), Some(id)) = (model, route) {
        match model.routes.get(usize::from(id.0)).and_then(|route| route.name.as_deref()) {
            Some(name) => _ = write!(text, ";route={}", escape(name)),
            None => _ = write!(text, ";route={}", id.0),
        }
    }
    if let Some(target) = model.zip(target).and_then(|(model, id)| model.targets.get(usize::from(id.0))) {
        _ = write!(text, ";target={}", escape(&target.name));
    }
    let why = refusal.map(Reason::name).or(decision.map(|it| it.why.name())).unwrap_or("none");
    _ = write!(text, ";reason={why}");
    text
}
