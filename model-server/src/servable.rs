//! Which models, versions and labels are served, and which one a `model_spec` means.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::config::{ModelConfig, VersionConfig};
use crate::errors::{self, Failure};
use crate::messages::{ModelSpec, ModelVersionStatus, State, StatusProto, VersionChoice};
use crate::record::Tally;

/// A version that answers: what a request holds on to while it runs, even if the version is unloaded.
#[derive(Clone, Debug)]
pub struct Servable {
    pub model: Arc<str>,
    pub version: i64,
    pub a: f32,
    pub b: f32,
    pub(crate) tally: Arc<Tally>,
}

#[derive(Debug)]
struct Version {
    servable: Servable,
    state: State,
}

#[derive(Debug, Default)]
struct Model {
    versions: BTreeMap<i64, Version>,
    labels: BTreeMap<String, i64>,
}

/// All models of one server.
#[derive(Debug, Default)]
pub struct Servables {
    models: RwLock<BTreeMap<String, Model>>,
}

impl Servables {
    pub fn new(models: &[ModelConfig]) -> Self {
        let servables = Self::default();
        for model in models {
            for &version in &model.versions {
                servables.load(&model.name, version);
            }
            for (label, &version) in &model.labels {
                servables.set_label(&model.name, label, Some(version));
            }
        }
        servables
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, Model>> {
        self.models.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Model>> {
        self.models.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves a version, or serves it again with these numbers.
    pub fn load(&self, model: &str, config: VersionConfig) {
        let mut models = self.write();
        let versions = &mut models.entry(model.to_owned()).or_default().versions;
        let tally = versions.get(&config.version).map(|version| Arc::clone(&version.servable.tally));
        let VersionConfig { version, a, b } = config;
        let servable = Servable { model: model.into(), version, a, b, tally: tally.unwrap_or_default() };
        versions.insert(version, Version { servable, state: State::Available });
    }

    /// Stops to serve a version: it answers NOT_FOUND and its status is END. False when there is none.
    pub fn unload(&self, model: &str, version: i64) -> bool {
        let mut models = self.write();
        let version = models.get_mut(model).and_then(|model| model.versions.get_mut(&version));
        version.map(|version| version.state = State::End).is_some()
    }

    /// Points a label at a version, which need not be served, or removes the label.
    pub fn set_label(&self, model: &str, label: &str, version: Option<i64>) {
        let mut models = self.write();
        let labels = &mut models.entry(model.to_owned()).or_default().labels;
        match version {
            Some(version) => labels.insert(label.to_owned(), version),
            None => labels.remove(label),
        };
    }

    /// The version that answers a `model_spec`, or the server's own error.
    pub fn resolve(&self, spec: &ModelSpec) -> Result<Servable, Failure> {
        let name = spec.name.as_str();
        if name.is_empty() {
            return Err(errors::no_name());
        }
        let models = self.read();
        let model = models.get(name);
        let asked = match &spec.version_choice {
            None => None,
            // An empty wrapper asks for version 0: presence decides, not the value.
            Some(VersionChoice::Version(version)) => Some(version.value),
            Some(VersionChoice::VersionLabel(label)) => {
                let version = model.and_then(|model| model.labels.get(label));
                Some(*version.ok_or_else(|| errors::unknown_label(label))?)
            }
        };
        let mut versions = model.into_iter().flat_map(|model| model.versions.values()).rev();
        let found = versions.find(|version| {
            version.state == State::Available && asked.is_none_or(|asked| asked == version.servable.version)
        });
        found.map(|version| version.servable.clone()).ok_or_else(|| errors::no_servable(name, asked))
    }

    /// GetModelStatus: a label is ignored, and the newest version comes first.
    pub fn status(&self, spec: &ModelSpec) -> Result<Vec<ModelVersionStatus>, Failure> {
        let models = self.read();
        let versions = models.get(&spec.name).map(|model| &model.versions);
        let status = |(&number, version): (&i64, &Version)| ModelVersionStatus {
            version: number,
            state: version.state.into(),
            status: Some(StatusProto::default()),
        };
        if let Some(asked) = spec.version() {
            let found = versions.and_then(|versions| versions.get_key_value(&asked)).map(status);
            return Ok(vec![found.ok_or_else(|| errors::no_version_status(&spec.name, asked))?]);
        }
        let all: Vec<_> = versions.into_iter().flatten().rev().map(status).collect();
        if all.is_empty() { Err(errors::no_model_status(&spec.name)) } else { Ok(all) }
    }

    /// The tallies of every version, loaded or not.
    pub(crate) fn tallies(&self) -> Vec<((String, i64), Arc<Tally>)> {
        let models = self.read();
        let versions = models.values().flat_map(|model| model.versions.values());
        let tally = |version: &Version| {
            let servable = &version.servable;
            ((servable.model.to_string(), servable.version), Arc::clone(&servable.tally))
        };
        versions.map(tally).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Failure, ModelSpec, Servables, State, VersionConfig, errors};
    use crate::client::Asked::{self, Label, Latest, Version};
    use crate::client::model_spec;
    use crate::config::ServerConfig;

    fn spec(name: &str, asked: Asked<'_>) -> ModelSpec {
        model_spec(name, asked, "")
    }

    fn servables() -> Servables {
        Servables::new(&ServerConfig::half_plus(&[("resnet", &[1, 2], &[("canary", 2), ("gone", 9)])]).models)
    }

    #[track_caller]
    fn check(servables: &Servables, spec: &ModelSpec, expected: &Result<i64, Failure>) {
        assert_eq!(servables.resolve(spec).map(|servable| servable.version), *expected, "{spec:?}");
    }

    #[test]
    fn a_spec_means_the_newest_version_unless_it_names_one() {
        let it = servables();
        check(&it, &spec("resnet", Latest), &Ok(2));
        check(&it, &spec("resnet", Version(1)), &Ok(1));
        check(&it, &spec("resnet", Label("canary")), &Ok(2));
    }

    #[test]
    fn an_empty_version_is_version_0() {
        check(&servables(), &spec("resnet", Version(0)), &Err(errors::no_servable("resnet", Some(0))));
        let zero = Servables::new(&ServerConfig::half_plus(&[("m", &[0, 1], &[])]).models);
        check(&zero, &spec("m", Version(0)), &Ok(0));
    }

    #[test]
    fn what_is_not_served_is_refused_as_the_server_does() {
        let it = servables();
        check(&it, &spec("", Latest), &Err(errors::no_name()));
        check(&it, &spec("bert", Latest), &Err(errors::no_servable("bert", None)));
        check(&it, &spec("resnet", Version(7)), &Err(errors::no_servable("resnet", Some(7))));
        check(&it, &spec("resnet", Label("x")), &Err(errors::unknown_label("x")));
        check(&it, &spec("bert", Label("x")), &Err(errors::unknown_label("x")));
        check(&it, &spec("resnet", Label("gone")), &Err(errors::no_servable("resnet", Some(9))));
    }

    #[test]
    fn an_unloaded_version_answers_no_more_and_its_state_is_end() {
        let it = servables();
        assert!(it.unload("resnet", 2));
        assert!(!it.unload("resnet", 3));
        check(&it, &spec("resnet", Latest), &Ok(1));
        check(&it, &spec("resnet", Version(2)), &Err(errors::no_servable("resnet", Some(2))));
        let states: Vec<_> = it.status(&spec("resnet", Latest)).unwrap();
        let states: Vec<_> = states.iter().map(|status| (status.version, status.state())).collect();
        assert_eq!(states, [(2, State::End), (1, State::Available)]);
        it.load("resnet", VersionConfig::half_plus(2));
        check(&it, &spec("resnet", Latest), &Ok(2));
    }

    #[test]
    fn status_ignores_a_label() {
        let it = servables();
        assert_eq!(it.status(&spec("resnet", Label("canary"))).unwrap().len(), 2);
        assert_eq!(it.status(&spec("resnet", Version(1))).unwrap().len(), 1);
        assert_eq!(it.status(&spec("resnet", Version(7))), Err(errors::no_version_status("resnet", 7)));
        assert_eq!(it.status(&spec("bert", Latest)), Err(errors::no_model_status("bert")));
    }
}
