//! Random input causes no harm.

use proptest::prelude::*;
use tucano_image_builder::{Compression, Entry, ImageSpec, Layer};

use crate::common::{Place, hello};
use crate::import;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
        let place = Place::new();
        prop_assert!(import(&place, &bytes).is_err());
        prop_assert_eq!((place.blobs(), place.unfinished()), (0, 0));
    }

    #[test]
    fn a_randomly_changed_archive_is_refused_or_unchanged(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let layout = hello();
        let mut archive = layout.archive().unwrap();
        for (at, byte) in changes {
            let at = at.index(archive.len());
            archive[at] = byte;
        }
        let place = Place::new();
        match import(&place, &archive) {
            Ok(digest) => prop_assert_eq!(digest.to_string(), layout.manifest_digest),
            Err(_) => prop_assert_eq!((place.blobs(), place.unfinished()), (0, 0)),
        }
    }

    #[test]
    fn a_randomly_changed_layer_unpacks_or_is_refused(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let entries = [
            Entry::directory("d").pax("SCHILY.xattr.user.a", "b"),
            Entry::symlink("d/l", "../../x"),
            Entry::file("d/l/f", "x"),
            Entry::hardlink("h", "d/f"),
            Entry::file("d/.wh.gone", ""),
        ];
        let mut tar = Layer::new(&entries, Compression::None).unwrap().blob;
        for (at, byte) in changes {
            let at = at.index(tar.len());
            tar[at] = byte;
            // Corrects the checksum, so that the change is parsed.
            fix_checksum(&mut tar[at / 512 * 512..][..512]);
        }
        let layer = Layer::from_tar(&tar, Compression::None).unwrap();
        let place = Place::new();
        if let Ok(image) = place.import(&ImageSpec::new("x").layer(layer).build().unwrap()) {
            drop(place.unpack(&image));
        }
        prop_assert_eq!(place.unfinished(), 0);
    }
}

fn fix_checksum(block: &mut [u8]) {
    let mut header = tar::Header::new_old();
    header.as_mut_bytes().copy_from_slice(block);
    header.set_cksum();
    block.copy_from_slice(header.as_bytes());
}
