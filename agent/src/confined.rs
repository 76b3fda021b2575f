//! The helper processes that unpack a layer and copy a volume: this same program, confined before it reads what others made.

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

/// Limit of the address space of the process that copies a volume: it keeps the names of all files.
const COPY_MEMORY_BYTES: u64 = 2 << 30;

/// Runs as the process that copies a volume.
///
/// # Errors
/// The process cannot be confined, or the request is invalid.
pub fn copy_volume(request: &str) -> Result<(), String> {
    crate::volumes::helper::serve(request, || {
        let missing = enter_directory(Path::new("."), COPY_MEMORY_BYTES)?;
        for missing in missing {
            tracing::debug!(
                missing,
                "a confinement of copying processes is not available"
            );
        }
        Ok(())
    })
}
