//! Layers are unpacked by processes of this same program, one for each layer, which are confined before they read it.

use std::{ffi::OsString, path::Path};

use tucano_oci_image::{Helper, serve};
use tucano_oci_runtime::confinement::enter_directory;

/// Address space of such a process: several times what the largest layer takes.
const MEMORY_BYTES: u64 = 1 << 30;

/// This program, as it is started to unpack a layer; replaced by another one meanwhile, it still is this one.
pub fn helper() -> Helper {
    Helper {
        program: "/proc/self/exe".into(),
        arguments: ["unpack-layer"].map(OsString::from).into(),
    }
}

/// What it does then.
///
/// # Errors
/// What keeps it from beginning; what is wrong with the layer it tells on stdout.
pub fn unpack_layer(request: &str) -> Result<(), String> {
    serve(request, || {
        let missing = enter_directory(Path::new("."), MEMORY_BYTES)?;
        for missing in missing {
            tracing::debug!(
                missing,
                "layers are unpacked less confined than they could be"
            );
        }
        Ok(())
    })
}
