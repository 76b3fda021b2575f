//! Images of archives or layout directories that are mounted into the containers of a service.

use std::path::{Path, PathBuf};

use tucano_api::service::ServiceConfig;

use super::{check_image, file_of, upload};
use crate::{Error, client::Client};

/// The archives that the mounts of a configuration in this directory name, by the index of the mount.
///
/// # Errors
/// One is not there.
pub(super) fn of_config(
    directory: &Path,
    config: &ServiceConfig,
) -> Result<Vec<(usize, PathBuf)>, Error> {
    let mounts = config.mount.iter().enumerate();
    let archives = mounts.filter_map(|(index, mount)| {
        let image = mount.image.as_deref()?;
        Some((index, file_of(directory, image)?))
    });
    let archives: Vec<_> = archives.collect();
    for (_, archive) in &archives {
        check_image(archive)?;
    }
    Ok(archives)
}

/// Uploads what the controller does not have of an archive; returns the image's digest.
///
/// # Errors
/// The archive cannot be read blob by blob, or the registry refuses it.
pub(super) async fn upload(client: &Client, archive: &Path) -> Result<String, Error> {
    let digest = upload::upload(client, archive, None).await?;
    digest.ok_or_else(|| not_understood(archive))
}

/// The error for an archive whose blobs cannot be read one by one.
pub(super) fn not_understood(archive: &Path) -> Error {
    let message = format!(
        "{} is compressed as a whole, or an archive of an unknown form: decompress it, or make an OCI archive of it \
         (`skopeo copy docker-archive:FILE oci-archive:FILE`)",
        archive.display()
    );
    Error::Refused(message.into())
}
