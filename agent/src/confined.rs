//! The helper process that unpacks a layer: this same program, confined before it reads the layer.

use std::{ffi::OsString, path::Path};

use tucano_oci_image::{Helper, serve};
use tucano_oci_runtime::confinement::enter_directory;

/// Limit of a helper's address space, several times the need of the largest layer.
const MEMORY_BYTES: u64 = 1 << 30;

/// The helper's command. `/proc/self/exe` stays this program when an upgrade replaces its file.
pub fn helper() -> Helper {
    Helper {
        program: "/proc/self/exe".into(),
        arguments: ["unpack-layer"].map(OsString::from).into(),
    }
}

/// Runs as the helper. Faults of the layer are reported on stdout, in the helper's protocol.
///
/// # Errors
/// The process cannot be confined, or the request is invalid.
pub fn unpack_layer(request: &str) -> Result<(), String> {
    serve(request, || {
        let missing = enter_directory(Path::new("."), MEMORY_BYTES)?;
        for missing in missing {
            tracing::debug!(missing, "a confinement of layer helpers is not available");
        }
        Ok(())
    })
}
