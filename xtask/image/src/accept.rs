//! The rules by which Istio's agent takes a module out of an image, stated again as a check
//! (istio/istio, pkg/wasm/imagefetcher.go and cache.go at 1.30.3).

use std::io::Read as _;

use anyhow::{Context as _, Result, bail, ensure};
use flate2::read::GzDecoder;
use serde_json::Value;

use crate::{FILE, MAGIC, MANIFEST, digest};

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const LAYERS: [&str; 2] =
    ["application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.docker.image.rootfs.diff.tar.gzip"];
/// ISTIO_WASM_MAX_BINARY_SIZE_BYTES as it is by default.
const MOST: u64 = 256 * 1024 * 1024;

/// The layer that the module is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    pub digest: String,
}

/// Where the agent finds the module, if the manifest is one that it takes under this pin.
///
/// `pin` is the digest of `@sha256:` in the address, or of `sha256` in the resource: of the manifest.
///
/// # Errors
///
/// Says which rule does not hold.
pub fn layer(manifest: &[u8], media_type: &str, pin: &str) -> Result<Layer> {
    let found = digest(manifest);
    let pin = pin.trim_start_matches("sha256:");
    ensure!(
        found == format!("sha256:{pin}"),
        "module downloaded has checksum {found}, expected sha256:{pin}"
    );
    ensure!(
        [MANIFEST, DOCKER_MANIFEST].contains(&media_type),
        "found {media_type}, expected a manifest and no index: of an index the agent compares the child's digest"
    );
    let manifest: Value = serde_json::from_slice(manifest).context("the manifest is not JSON")?;
    let layers = manifest.get("layers").and_then(Value::as_array).context("the manifest has no layers")?;
    let last = layers.last().context("the manifest has no layers")?;
    let field = |name: &str| last.get(name).and_then(Value::as_str).unwrap_or_default();
    ensure!(LAYERS.contains(&field("mediaType")), "the last layer is {}", field("mediaType"));
    Ok(Layer { digest: field("digest").to_owned() })
}

/// The module in a layer.
///
/// # Errors
///
/// When the layer is no gzipped tar with the file, or the file is too large or no module.
pub fn module(layer: &[u8]) -> Result<Vec<u8>> {
    let mut tar = tar::Archive::new(GzDecoder::new(layer));
    for entry in tar.entries().context("the layer is no tar")? {
        let entry = entry.context("the layer is no gzipped tar")?;
        // Only the last part of the path counts for the agent.
        if entry.path()?.file_name().is_none_or(|name| name != FILE) {
            continue;
        }
        ensure!(entry.size() <= MOST, "{FILE} has {} bytes, at most {MOST} are taken", entry.size());
        let mut bytes = Vec::new();
        entry.take(MOST).read_to_end(&mut bytes)?;
        ensure!(bytes.starts_with(MAGIC), "{FILE} is not a Wasm module");
        return Ok(bytes);
    }
    bail!("the layer has no {FILE}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Image;

    #[test]
    fn the_image_is_taken_under_the_digest_of_its_manifest() {
        let image = Image::of(MAGIC, "0.1.0").unwrap();
        let found = layer(&image.manifest.bytes, MANIFEST, &image.manifest.digest).unwrap();
        assert_eq!(found.digest, image.layer.digest);
        assert_eq!(module(&image.layer.bytes).unwrap(), MAGIC);
    }

    #[test]
    fn the_digest_of_the_module_is_no_pin() {
        let image = Image::of(MAGIC, "0.1.0").unwrap();
        let error = layer(&image.manifest.bytes, MANIFEST, &digest(MAGIC)).unwrap_err();
        assert!(error.to_string().contains("has checksum"), "{error}");
    }

    #[test]
    fn an_index_and_a_bare_wasm_layer_are_refused() {
        let image = Image::of(MAGIC, "0.1.0").unwrap();
        let index = "application/vnd.oci.image.index.v1+json";
        assert!(layer(&image.manifest.bytes, index, &image.manifest.digest).is_err());
        let bare = String::from_utf8(image.manifest.bytes).unwrap();
        let bare = bare.replace("image.layer.v1.tar+gzip", "wasm");
        let error = layer(bare.as_bytes(), MANIFEST, &digest(bare.as_bytes())).unwrap_err();
        assert!(error.to_string().contains("the last layer is"), "{error}");
    }
}
