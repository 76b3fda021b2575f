//! Images for tests.

use tucano_image_builder::{Compression, Entry, ImageSpec, Layer};

/// A small image that holds `content`.
pub(crate) fn archive(content: &str) -> Vec<u8> {
    spec(content).build().unwrap().archive().unwrap()
}

/// The same, as a builder.
pub(crate) fn spec(content: &str) -> ImageSpec {
    let file = Entry::file("hello", content).mode(0o755);
    ImageSpec::new("hello").layer(Layer::new(&[file], Compression::Gzip).unwrap())
}

/// An image of at least this many incompressible bytes.
pub(crate) fn large_archive(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let noise: Vec<u8> = (0..bytes)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        })
        .collect();
    let program = Entry::file("hello", noise).mode(0o755);
    let layer = Layer::new(&[program], Compression::Gzip).unwrap();
    ImageSpec::new("hello")
        .layer(layer)
        .build()
        .unwrap()
        .archive()
        .unwrap()
}

/// A configuration for `hello`.
pub(crate) fn config(concurrency: u32, more: &str) -> String {
    format!(
        "name = \"hello\"\nconcurrency = {concurrency}\nport = 8080\nimage = \"hello.tar\"\n{more}"
    )
}
