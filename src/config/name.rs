//! Texts that become names: of models, targets, clusters, versions and the rest.

use std::ops::RangeInclusive;

use super::at::At;
use super::json::Value;
use crate::units::Version;

/// In bytes; a name of Istio's (`outbound|8500|v2|tfs.models.svc.cluster.local`) may be longer than a DNS name.
const MAX_CLUSTER: usize = 1024;

/// In bytes.
pub const MAX_NAME: usize = 256;

impl At<'_> {
    /// Any text of so many bytes that stays in one line of a log.
    pub fn plain_text(self, bytes: RangeInclusive<usize>) -> Option<Box<str>> {
        let text = self.text()?;
        if bytes.contains(&text.len()) && !text.chars().any(char::is_control) {
            return Some(text.into());
        }
        let (least, most) = bytes.into_inner();
        self.expected(format_args!("{least} to {most} bytes of text without control characters"))
    }

    pub fn name(self) -> Option<Box<str>> {
        self.plain_text(1..=MAX_NAME)
    }

    /// A name, or a prefix that ends in `*`.
    pub fn model_name(self) -> Option<Box<str>> {
        let name = self.name()?;
        let prefix = name.strip_suffix('*').unwrap_or(&name);
        if prefix.contains('*') {
            return self.expected("\"*\" as the last character only");
        }
        Some(name)
    }

    /// A name that is sent as the value of a header.
    pub fn cluster(self) -> Option<Box<str>> {
        let name = self.text()?;
        if is_visible(name, MAX_CLUSTER) {
            return Some(name.into());
        }
        self.expected(format_args!("1 to {MAX_CLUSTER} bytes of visible ASCII"))
    }

    /// A name that is part of the keys of shared data.
    pub fn state_namespace(self) -> Option<Box<str>> {
        let name = self.text()?;
        let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if (1..=64).contains(&name.len()) && name.bytes().all(is_safe) {
            return Some(name.into());
        }
        self.expected("1 to 64 letters, digits, \".\", \"_\" or \"-\"")
    }

    /// Text, or a whole number.
    pub fn version(self) -> Option<Version> {
        if let Some(number) = self.integer() {
            return Some(Version::Number(number));
        }
        match self.value() {
            Value::Text(_) => self.name().map(|name| Version::parse(&name)),
            _ => self.expected("a version such as \"2\""),
        }
    }
}

/// Whether `text` is a name that may stand in a header as it is.
pub fn is_visible(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}
