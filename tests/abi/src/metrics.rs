//! One metric store for the process, as Envoy has it: every worker and VM adds to the same numbers.

use std::collections::BTreeMap;

use crate::call::Status;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    pub kind: Kind,
    /// Of a counter or a gauge; a gauge below zero is a defect of the module.
    pub value: i64,
    /// Of a histogram, in the order of recording.
    pub samples: Vec<u64>,
}

#[derive(Debug, Default)]
pub(crate) struct Metrics {
    by_name: BTreeMap<String, Metric>,
}

impl Metrics {
    pub fn define(&mut self, kind: Kind, name: &str) {
        let new = Metric { kind, value: 0, samples: Vec::new() };
        self.by_name.entry(name.to_owned()).or_insert(new);
    }

    pub fn increment(&mut self, name: &str, offset: i64) -> Result<(), Status> {
        let metric = self.by_name.get_mut(name).ok_or(Status::NotFound)?;
        match metric.kind {
            Kind::Counter if offset <= 0 => Err(Status::BadArgument),
            Kind::Histogram => Err(Status::BadArgument),
            Kind::Counter | Kind::Gauge => {
                metric.value += offset;
                Ok(())
            }
        }
    }

    pub fn record(&mut self, name: &str, value: u64) -> Result<(), Status> {
        let metric = self.by_name.get_mut(name).ok_or(Status::NotFound)?;
        let signed = i64::try_from(value).map_err(|_| Status::BadArgument)?;
        match metric.kind {
            Kind::Counter => metric.value += signed,
            Kind::Gauge => metric.value = signed,
            Kind::Histogram => metric.samples.push(value),
        }
        Ok(())
    }

    pub fn get(&self, name: &str) -> Result<u64, Status> {
        let metric = self.by_name.get(name).ok_or(Status::NotFound)?;
        match metric.kind {
            Kind::Histogram => Err(Status::BadArgument),
            Kind::Counter | Kind::Gauge => Ok(metric.value.cast_unsigned()),
        }
    }

    /// All metrics of this bare name that have at least these tags.
    pub fn matching(&self, name: &str, tags: &[(&str, &str)]) -> impl Iterator<Item = &Metric> {
        let matches = move |full: &str| {
            let (bare, all) = parse(full);
            bare == name && tags.iter().all(|(tag, value)| all.get(tag) == Some(value))
        };
        self.by_name.iter().filter(move |(full, _)| matches(full)).map(|(_, metric)| metric)
    }

    pub fn all(&self) -> &BTreeMap<String, Metric> {
        &self.by_name
    }
}

/// The name and the tags of a metric called `tag=.=value;.;other=.=value;.;name`.
pub(crate) fn parse(name: &str) -> (&str, BTreeMap<&str, &str>) {
    let mut tags = BTreeMap::new();
    let mut bare = name;
    for part in name.split(";.;") {
        match part.split_once("=.=") {
            Some((tag, value)) => {
                tags.insert(tag, value);
            }
            None => bare = part,
        }
    }
    (bare, tags)
}
