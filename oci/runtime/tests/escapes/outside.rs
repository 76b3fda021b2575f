//! Files outside the container that must stay untouched.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use crate::harness::Case;

/// A directory of the host's with one file.
pub(crate) struct Outside(pub(crate) PathBuf);

impl Outside {
    pub(crate) fn of(case: &Case) -> Self {
        let place = case.path("outside");
        fs::create_dir(&place).unwrap();
        fs::write(place.join("kept"), "kept").unwrap();
        Self(place)
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.0.join("kept")
    }

    pub(crate) fn assert_untouched(&self) {
        let names: Vec<_> = fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["kept"]);
        assert_eq!(fs::read_to_string(self.file()).unwrap(), "kept");
    }
}

/// Adds a mount to the configuration.
pub(crate) fn add_mount(case: &mut Case, mount: Value) {
    case.config["mounts"].as_array_mut().unwrap().push(mount);
}

pub(crate) fn bind(source: &std::path::Path, destination: &str) -> Value {
    json!({"destination": destination, "type": "bind", "source": source, "options": ["rbind", "rw"]})
}

/// Removes the mounts on and below a directory, which leaves it to the image.
pub(crate) fn without_mounts_below(case: &mut Case, place: &str) {
    let mounts = case.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with(place));
}

/// A container that cannot be created; why not.
pub(crate) fn refused(case: &Case) -> String {
    let (created, said) = case.create();
    assert!(!created, "it was created");
    said
}
