//! Manifest and configuration around layers.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use oci_spec::image::{
    Arch, ConfigBuilder, DescriptorBuilder, Digest, HistoryBuilder, ImageConfigurationBuilder,
    ImageIndexBuilder, ImageManifestBuilder, MediaType, OciLayoutBuilder, RootFsBuilder,
};
use serde_json::{Value, json};

use crate::{
    layer::Layer,
    layout::{Layout, blob_path, sha256},
};

/// A constant creation time, so that builds are reproducible.
const CREATED: &str = "1970-01-01T00:00:00Z";

type Edit = Box<dyn Fn(&mut Value)>;

/// The specification of an image.
pub struct ImageSpec {
    /// Its name in the layout's index (`org.opencontainers.image.ref.name`).
    pub reference: String,
    /// In Go's terms: `amd64`, `arm64`.
    pub architecture: String,
    /// In Go's terms: `linux`.
    pub os: String,
    /// The command that is run.
    pub entrypoint: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// `uid:gid` or names.
    pub user: String,
    /// Lowest first.
    pub layers: Vec<Layer>,
    config_edits: Vec<Edit>,
    manifest_edits: Vec<Edit>,
}

impl ImageSpec {
    /// An image for this machine, without layers, that would run `/<name>` as root.
    pub fn new(name: &str) -> Self {
        Self {
            reference: "latest".to_owned(),
            architecture: Arch::default().to_string(),
            os: "linux".to_owned(),
            entrypoint: vec![format!("/{name}")],
            env: vec!["PATH=/usr/local/bin:/usr/bin:/bin:/".to_owned()],
            user: String::new(),
            layers: Vec::new(),
            config_edits: Vec::new(),
            manifest_edits: Vec::new(),
        }
    }

    /// With one more layer on top.
    #[must_use]
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer);
        self
    }

    /// For another machine.
    #[must_use]
    pub fn architecture(self, architecture: &str) -> Self {
        Self {
            architecture: architecture.to_owned(),
            ..self
        }
    }

    /// Run as this user.
    #[must_use]
    pub fn user(self, user: &str) -> Self {
        Self {
            user: user.to_owned(),
            ..self
        }
    }

    /// With the configuration's JSON changed at the end; the manifest then refers to the changed one.
    #[must_use]
    pub fn edit_config(mut self, edit: impl Fn(&mut Value) + 'static) -> Self {
        self.config_edits.push(Box::new(edit));
        self
    }

    /// With the manifest's JSON changed at the end; the index then refers to the changed one.
    #[must_use]
    pub fn edit_manifest(mut self, edit: impl Fn(&mut Value) + 'static) -> Self {
        self.manifest_edits.push(Box::new(edit));
        self
    }

    /// The finished image.
    ///
    /// # Errors
    /// If a part is missing or not valid.
    pub fn build(&self) -> Result<Layout> {
        let mut files = BTreeMap::new();
        let config = edited(self.config()?, &self.config_edits)?;
        let config_digest = put_blob(&mut files, &config);
        for layer in &self.layers {
            put_blob(&mut files, &layer.blob);
        }
        let manifest = self.manifest(&config_digest, config.len())?;
        let manifest = edited(manifest, &self.manifest_edits)?;
        let manifest_digest = put_blob(&mut files, &manifest);
        let index = self.index(&manifest_digest, manifest.len())?;
        let marker = OciLayoutBuilder::default()
            .image_layout_version("1.0.0")
            .build()?;
        files.insert("index.json".to_owned(), serde_json::to_vec(&index)?);
        files.insert("oci-layout".to_owned(), serde_json::to_vec(&marker)?);
        Ok(Layout {
            files,
            manifest_digest,
        })
    }

    fn config(&self) -> Result<Value> {
        let process = ConfigBuilder::default()
            .entrypoint(self.entrypoint.clone())
            .env(self.env.clone())
            .user(self.user.clone())
            .working_dir("/")
            .build()?;
        let diff_ids: Vec<String> = self.layers.iter().map(|it| it.diff_id.clone()).collect();
        let history: Result<Vec<_>, _> = self
            .layers
            .iter()
            .map(|_| {
                HistoryBuilder::default()
                    .created(CREATED)
                    .created_by("tucano images")
                    .build()
            })
            .collect();
        let config = ImageConfigurationBuilder::default()
            .created(CREATED)
            .architecture(self.architecture.as_str())
            .os(self.os.as_str())
            .config(process)
            .rootfs(
                RootFsBuilder::default()
                    .typ("layers")
                    .diff_ids(diff_ids)
                    .build()?,
            )
            .history(history?)
            .build()?;
        Ok(serde_json::to_value(config)?)
    }

    fn manifest(&self, config_digest: &str, config_bytes: usize) -> Result<Value> {
        let config = DescriptorBuilder::default()
            .media_type(MediaType::ImageConfig)
            .digest(config_digest.parse::<Digest>()?)
            .size(config_bytes as u64)
            .build()?;
        let layers: Result<Vec<_>> = self
            .layers
            .iter()
            .map(|layer| {
                let descriptor = DescriptorBuilder::default()
                    .media_type(layer.compression.media_type())
                    .digest(sha256(&layer.blob).parse::<Digest>()?)
                    .size(layer.blob.len() as u64)
                    .build();
                Ok(descriptor?)
            })
            .collect();
        let manifest = ImageManifestBuilder::default()
            .schema_version(2u32)
            .media_type(MediaType::ImageManifest)
            .config(config)
            .layers(layers?)
            .build()?;
        Ok(serde_json::to_value(manifest)?)
    }

    fn index(&self, manifest_digest: &str, manifest_bytes: usize) -> Result<Value> {
        let manifest = DescriptorBuilder::default()
            .media_type(MediaType::ImageManifest)
            .digest(manifest_digest.parse::<Digest>()?)
            .size(manifest_bytes as u64)
            .build()
            .context("the index cannot refer to the manifest")?;
        let index = ImageIndexBuilder::default()
            .schema_version(2u32)
            .media_type(MediaType::ImageIndex)
            .manifests(vec![manifest])
            .build()?;
        let mut index = serde_json::to_value(index)?;
        index["manifests"][0]["platform"] =
            json!({ "architecture": self.architecture, "os": self.os });
        index["manifests"][0]["annotations"] =
            json!({ "org.opencontainers.image.ref.name": self.reference });
        Ok(index)
    }
}

fn edited(mut document: Value, edits: &[Edit]) -> Result<Vec<u8>> {
    edits.iter().for_each(|edit| edit(&mut document));
    Ok(serde_json::to_vec(&document)?)
}

fn put_blob(files: &mut BTreeMap<String, Vec<u8>>, blob: &[u8]) -> String {
    let digest = sha256(blob);
    files.insert(blob_path(&digest), blob.to_vec());
    digest
}
