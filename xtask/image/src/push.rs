//! Pushes an image to a registry.

use anyhow::{Context as _, Result, ensure};
use docker_credential::{CredentialRetrievalError, DockerCredential};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference, RegistryOperation};

use crate::{Image, MANIFEST};

/// How a registry is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registry {
    Https,
    /// For a registry on this machine.
    PlainHttp,
}

/// Pushes `image` and gives the address that pins it: `REGISTRY/NAME@sha256:...`.
///
/// Who may push is read from Docker's own configuration (`docker login`); without an entry for the registry the push
/// is anonymous.
///
/// # Errors
///
/// When the reference is malformed, or the registry refuses or stores other bytes than these.
pub async fn push(image: &Image, reference: &str, registry: Registry) -> Result<String> {
    // Fails if there is a provider already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let to: Reference =
        reference.parse().with_context(|| format!("{reference}: not a reference to an image"))?;
    let protocol = match registry {
        Registry::Https => ClientProtocol::Https,
        Registry::PlainHttp => ClientProtocol::Http,
    };
    let client = Client::new(ClientConfig { protocol, ..ClientConfig::default() });
    let auth = credentials(to.resolve_registry())?;
    client
        .auth(&to, &auth, RegistryOperation::Push)
        .await
        .with_context(|| format!("{} does not let this user push", to.registry()))?;
    for blob in [&image.config, &image.layer] {
        let pushed = client.push_blob(&to, blob.bytes.clone(), &blob.digest).await;
        pushed.with_context(|| format!("{reference}: cannot push the blob {}", blob.digest))?;
    }
    let media_type = MANIFEST.parse().context("the media type of the manifest")?;
    client
        .push_manifest_raw(&to, image.manifest.bytes.clone(), media_type)
        .await
        .with_context(|| format!("{reference}: cannot push the manifest"))?;
    // What a registry has converted would have another digest, and the pin would never match.
    let pinned = to.clone_with_digest(image.manifest.digest.clone());
    let (stored, _) = client
        .pull_manifest_raw(&pinned, &auth, &[MANIFEST])
        .await
        .with_context(|| format!("{pinned}: the registry does not serve what was pushed"))?;
    ensure!(stored == image.manifest.bytes, "{pinned}: the registry serves other bytes than were pushed");
    Ok(format!("{}/{}@{}", to.registry(), to.repository(), image.manifest.digest))
}

fn credentials(registry: &str) -> Result<RegistryAuth> {
    match docker_credential::get_credential(registry) {
        Ok(DockerCredential::UsernamePassword(user, password)) => Ok(RegistryAuth::Basic(user, password)),
        Ok(DockerCredential::IdentityToken(_)) => {
            anyhow::bail!(
                "{registry}: found an identity token, expected a name and a password (`docker login`)"
            )
        }
        Err(
            CredentialRetrievalError::ConfigNotFound
            | CredentialRetrievalError::ConfigReadError
            | CredentialRetrievalError::NoCredentialConfigured,
        ) => Ok(RegistryAuth::Anonymous),
        Err(error) => Err(error).with_context(|| format!("{registry}: cannot read Docker's credentials")),
    }
}
