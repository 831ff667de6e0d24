//! The filter as an OCI image.
//!
//! Its form is the one that Istio's agent, Envoy Gateway and every registry take: a single manifest, no index, whose
//! last layer is a gzipped tar with the file `plugin.wasm`.
//! (An artifact with one Wasm layer, as `oras push` makes it, is refused by the agent.)
//! Nothing in it tells when or where it was made, so one module makes one digest.

pub mod accept;
mod push;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use flate2::{Compression, GzBuilder};
use serde::Serialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};

pub use push::{Registry, push};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// The name that the agent looks for in the layer.
pub const FILE: &str = "plugin.wasm";
/// What a Wasm module begins with.
const MAGIC: &[u8] = b"\0asm\x01\0\0\0";

/// An image: the blobs and the manifest that names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub config: Blob,
    pub layer: Blob,
    pub manifest: Blob,
}

/// Bytes and their digest, `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    pub bytes: Vec<u8>,
    pub digest: String,
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        let digest = digest(&bytes);
        Self { bytes, digest }
    }

    fn json(value: &impl Serialize) -> Result<Self> {
        Ok(Self::new(serde_json::to_vec(value)?))
    }

    fn descriptor(&self, media_type: &'static str) -> Descriptor<'_> {
        Descriptor { media_type, digest: &self.digest, size: self.bytes.len() }
    }
}

// The order of fields is part of the digest, so these are types: the order of a JSON map hangs on the features that
// some other package asks of serde_json.

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor<'a> {
    media_type: &'static str,
    digest: &'a str,
    size: usize,
}

#[derive(Serialize)]
struct Config<'a> {
    architecture: &'static str,
    os: &'static str,
    rootfs: RootFs<'a>,
}

#[derive(Serialize)]
struct RootFs<'a> {
    r#type: &'static str,
    diff_ids: [&'a str; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    schema_version: u32,
    media_type: &'static str,
    config: Descriptor<'a>,
    layers: [Descriptor<'a>; 1],
    annotations: BTreeMap<&'static str, &'a str>,
}

impl Image {
    /// Puts a module into an image of this version.
    ///
    /// # Errors
    ///
    /// When the bytes are no Wasm module.
    pub fn of(module: &[u8], version: &str) -> Result<Self> {
        ensure!(module.starts_with(MAGIC), "not a Wasm module: it does not begin with \\0asm and version 1");
        let tar = tar(module)?;
        let layer = Blob::new(gzip(&tar)?);
        let config = Blob::json(&Config {
            architecture: "wasm",
            os: "wasip1",
            rootfs: RootFs { r#type: "layers", diff_ids: [&digest(&tar)] },
        })?;
        let manifest = Blob::json(&Manifest {
            schema_version: 2,
            media_type: MANIFEST,
            config: config.descriptor(CONFIG),
            layers: [layer.descriptor(LAYER)],
            annotations: BTreeMap::from([
                ("module.wasm.image/variant", "compat"),
                ("org.opencontainers.image.title", "predictgate"),
                ("org.opencontainers.image.version", version),
                ("org.opencontainers.image.licenses", "Apache-2.0"),
            ]),
        })?;
        Ok(Self { config, layer, manifest })
    }

    /// Writes the image as an OCI layout, in place of what is there.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        if folder.exists() {
            // A layout and nothing else is removed.
            ensure!(folder.join("oci-layout").exists(), "{} is there and is no OCI layout", folder.display());
            fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [self.manifest.descriptor(MANIFEST)],
        });
        let files = [
            ("oci-layout".to_owned(), json!({ "imageLayoutVersion": "1.0.0" }).to_string().into_bytes()),
            ("index.json".to_owned(), index.to_string().into_bytes()),
        ];
        let blobs = [&self.config, &self.layer, &self.manifest];
        let blobs =
            blobs.map(|blob| (format!("blobs/{}", blob.digest.replace(':', "/")), blob.bytes.clone()));
        fs::create_dir_all(folder.join("blobs/sha256"))
            .with_context(|| format!("cannot make {}", folder.display()))?;
        for (name, bytes) in files.into_iter().chain(blobs) {
            let path = folder.join(name);
            fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

/// `sha256:` and the digits.
pub fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

fn tar(module: &[u8]) -> Result<Vec<u8>> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_path(FILE)?;
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(module.len() as u64);
    header.set_cksum();
    let mut tar = tar::Builder::new(Vec::new());
    tar.append(&header, module)?;
    Ok(tar.into_inner()?)
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    // 255: no operating system in particular.
    let mut gzip = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::best());
    gzip.write_all(bytes)?;
    Ok(gzip.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_module_makes_one_digest() {
        let module = [MAGIC, &[7; 100_000]].concat();
        let image = Image::of(&module, "0.1.0").unwrap();
        assert_eq!(Image::of(&module, "0.1.0").unwrap(), image);
        // Of these very bytes; another one means that something else than the module went into the image.
        assert_eq!(
            digest(&tar(&module).unwrap()),
            "sha256:43837406fd12bdb07694e5b09aa7d00c595456522eda1d8f18ccbf23a84a7095"
        );
        let other = Image::of(&[&module, &[0][..]].concat(), "0.1.0").unwrap();
        assert_ne!(other.manifest.digest, image.manifest.digest);
    }

    #[test]
    fn what_is_no_module_makes_no_image() {
        assert!(Image::of(b"\x7fELF", "0.1.0").is_err());
    }

    #[test]
    fn a_layout_replaces_a_layout_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let image = Image::of(MAGIC, "0.1.0").unwrap();
        assert!(image.write(folder.path()).is_err(), "a folder that is no layout is kept");
        let layout = folder.path().join("image");
        image.write(&layout).unwrap();
        image.write(&layout).unwrap();
        let index: serde_json::Value =
            serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
        assert_eq!(index["manifests"][0]["digest"], image.manifest.digest);
        for blob in [image.config, image.layer, image.manifest] {
            let path = layout.join("blobs").join(blob.digest.replace(':', "/"));
            assert_eq!(digest(&fs::read(path).unwrap()), blob.digest);
        }
    }
}
