//! The names of images in an archive, and their comparison with a requested name.

use std::collections::HashMap;

/// The annotation with an image's name (OCI image specification, "Pre-Defined Annotation Keys").
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation with the full name that containerd and newer Docker add.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// The prefixes that tools add to short names.
const DEFAULT_REGISTRIES: [&str; 3] = ["docker.io/library/", "docker.io/", "localhost/"];

/// Selects images by name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NameFilter<'a> {
    name: Option<&'a str>,
}

impl<'a> NameFilter<'a> {
    /// Matches this name (a tag, `name`, `name:tag` with or without its registry, or the manifest's digest); `None`
    /// matches every image.
    pub(crate) fn new(name: Option<&'a str>) -> Self {
        Self { name }
    }

    /// The requested name.
    pub(crate) fn name(self) -> Option<&'a str> {
        self.name
    }

    /// Whether one of an image's names is the requested one.
    pub(crate) fn matches(self, names: &[String]) -> bool {
        self.name
            .is_none_or(|wanted| names.iter().any(|name| is_same(name, wanted)))
    }
}

/// The names in a descriptor's annotations, the longest first.
pub(crate) fn names_of(annotations: Option<&HashMap<String, String>>) -> Vec<String> {
    let Some(annotations) = annotations else {
        return Vec::new();
    };
    [CONTAINERD_NAME, REF_NAME]
        .iter()
        .filter_map(|key| annotations.get(*key).cloned())
        .collect()
}

fn is_same(name: &str, wanted: &str) -> bool {
    name == wanted || canonical(name) == canonical(wanted)
}

/// The name without a default registry, and its tag: `latest` where it has neither tag nor digest.
fn canonical(name: &str) -> (&str, &str) {
    let short = DEFAULT_REGISTRIES
        .iter()
        .find_map(|place| name.strip_prefix(place))
        .unwrap_or(name);
    if let Some((repository, digest)) = short.split_once('@') {
        return (repository, digest);
    }
    match short.rsplit_once(':') {
        // A colon before a slash belongs to a registry's port.
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (short, "latest"),
    }
}

#[cfg(test)]
mod tests;
