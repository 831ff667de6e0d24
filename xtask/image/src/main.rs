//! Writes the filter as an OCI layout, and pushes it when told where to.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser;
use predictgate_image::{Image, Registry, push};

#[derive(Parser)]
struct Arguments {
    /// The built filter
    #[arg(long)]
    module: PathBuf,
    /// Where the OCI layout goes
    #[arg(long)]
    out: PathBuf,
    /// Push to this reference: REGISTRY/NAME:TAG
    #[arg(long, value_name = "REFERENCE")]
    push: Option<String>,
    /// Speak HTTP, to a registry on this machine
    #[arg(long)]
    plain_http: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let Arguments { module, out, push: to, plain_http } = Arguments::parse();
    let bytes = fs::read(&module).with_context(|| format!("cannot read {}", module.display()))?;
    let image =
        Image::of(&bytes, env!("CARGO_PKG_VERSION")).with_context(|| format!("{}", module.display()))?;
    image.write(&out)?;
    println!("{}: {} bytes", out.display(), image.layer.bytes.len());
    println!("manifest {}", image.manifest.digest);
    if let Some(reference) = to {
        let registry = if plain_http { Registry::PlainHttp } else { Registry::Https };
        println!("pushed {}", push(&image, &reference, registry).await?);
    }
    Ok(())
}
