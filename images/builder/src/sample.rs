//! The content of a sample service's image: a base layer that all of them share, and the program.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use crate::{
    image::ImageSpec,
    layer::{Compression, Entry, Layer},
    layout::Layout,
};

const PASSWD: &str = "root:x:0:0:root:/:/\napp:x:1000:1000:app:/:/\n";
const GROUP: &str = "root:x:0:\napp:x:1000:\n";

/// The image of the sample service `name`, whose static program is at `program`.
///
/// # Errors
/// If the program cannot be read.
pub fn image(name: &str, program: &Path) -> Result<Layout> {
    let program = fs::read(program)
        .with_context(|| format!("the program {} was not built", program.display()))?;
    let program = [Entry::file(name, program).mode(0o755)];
    ImageSpec::new(name)
        .user("1000:1000")
        .layer(base()?)
        .layer(Layer::new(&program, Compression::Gzip)?)
        .build()
}

/// Users and a place for temporary files: what programs expect of any system.
fn base() -> Result<Layer> {
    let entries = [
        Entry::directory("etc/"),
        Entry::file("etc/group", GROUP),
        Entry::file("etc/passwd", PASSWD),
        Entry::directory("tmp/").mode(0o1777),
    ];
    Layer::new(&entries, Compression::Gzip)
}
