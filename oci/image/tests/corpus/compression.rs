//! Compressed layers: stargz, zstd:chunked, pigz, and tools that declare another compression than they use.

use std::io::Write;

use tucano_image_builder::{Compression, Entry, Layer};

use crate::kit::{Case, case_of};

fn layer() -> Layer {
    let content: Vec<u8> = (0..200_000_u32)
        .map(|at| (at.wrapping_mul(at) >> 9) as u8)
        .collect();
    let entries = [Entry::file("f", "x"), Entry::file("large", content)];
    Layer::new(&entries, Compression::None).unwrap()
}

/// The layer with this blob, declared as compressed in this way.
fn stored(blob: Vec<u8>, compression: Compression) -> Vec<Layer> {
    let layer = layer();
    vec![Layer {
        blob,
        compression,
        ..layer
    }]
}

fn zstd(change: impl Fn(&mut zstd::Encoder<'_, Vec<u8>>)) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    change(&mut encoder);
    encoder.write_all(&layer().blob).unwrap();
    encoder.finish().unwrap()
}

fn window(log: u32) -> Vec<u8> {
    zstd(|encoder| {
        encoder.window_log(log).unwrap();
        encoder.long_distance_matching(true).unwrap();
    })
}

/// A member for each half, as pigz and stargz write them.
fn members(compression: Compression) -> Vec<u8> {
    let tar = layer().blob;
    let (first, second) = tar.split_at(tar.len() / 2);
    let mut blob = compression.compress(first).unwrap();
    blob.extend(compression.compress(second).unwrap());
    blob
}

/// A frame that decoders skip, as zstd:chunked has its table of contents in one.
fn skippable() -> Vec<u8> {
    let mut frame = vec![0x50, 0x2a, 0x4d, 0x18, 5, 0, 0, 0];
    frame.extend(b"table");
    frame
}

fn gzip_with_name() -> Vec<u8> {
    let builder = flate2::GzBuilder::new()
        .filename("layer.tar")
        .comment("x")
        .extra(vec![1; 9]);
    let mut encoder = builder.write(Vec::new(), flate2::Compression::best());
    encoder.write_all(&layer().blob).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn cases() -> Vec<Case> {
    use Compression::{Gzip, None, Zstd};
    let tar = || layer().blob;
    let accepted = |name, blob, compression| {
        case_of(name, stored(blob, compression)).has(&[
            ("f", "file 644 0:0 x"),
            ("large", "file 644 0:0 200000 bytes"),
        ])
    };
    let chunked = [members(Zstd), skippable()].concat();
    vec![
        accepted("two members of gzip", members(Gzip), Gzip),
        accepted("gzip with a name and a comment", gzip_with_name(), Gzip),
        accepted(
            "gzip with the lowest level",
            {
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
                encoder.write_all(&tar()).unwrap();
                encoder.finish().unwrap()
            },
            Gzip,
        ),
        accepted("two frames of zstd and a table", chunked, Zstd),
        accepted(
            "a skippable frame first",
            [skippable(), zstd(|_| ())].concat(),
            Zstd,
        ),
        accepted(
            "zstd with a checksum",
            zstd(|it| it.include_checksum(true).unwrap()),
            Zstd,
        ),
        accepted("a zstd window of 16 MiB", window(24), Zstd),
        accepted("a zstd window of 128 MiB", window(27), Zstd),
        case_of("a zstd window of 256 MiB", stored(window(28), Zstd))
            .refused("too_large", "zstd window")
            .because("the window is memory of the node for each layer that is unpacked"),
        accepted("a plain tar that is declared as gzip", tar(), Gzip),
        accepted(
            "gzip that is declared as a plain tar",
            Gzip.compress(&tar()).unwrap(),
            None,
        ),
        accepted(
            "zstd that is declared as gzip",
            Zstd.compress(&tar()).unwrap(),
            Gzip,
        ),
        case_of(
            "gzip that ends too early",
            stored(
                Gzip.compress(&tar())
                    .map(|mut blob| {
                        blob.truncate(blob.len() / 2);
                        blob
                    })
                    .unwrap(),
                Gzip,
            ),
        )
        .refused("malformed", "cannot be decompressed"),
    ]
}
