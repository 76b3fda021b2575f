use super::*;

fn blob(byte: &str) -> OciDigest {
    format!("sha256:{}", byte.repeat(64)).parse().unwrap()
}

fn unpack(source: tucano_oci_image::Error) -> Result<(), Error> {
    Err(Error::Unpack {
        digest: "sha256:1".to_owned(),
        source: Box::new(source),
    })
}

fn died() -> Result<(), Error> {
    unpack(tucano_oci_image::Error::HelperDied("signal 11".to_owned()))
}

#[test]
fn a_layer_is_refused_after_a_few_tries_with_its_reason() {
    let refused = RefusedLayers::default();
    for _try in 0..TRIES {
        refused.check(&blob("1")).unwrap();
        refused.note(&blob("1"), &died());
    }
    for _later in 0..10 {
        let error = refused.check(&blob("1")).unwrap_err().to_string();
        assert!(error.contains("signal 11"), "{error}");
        assert!(error.contains("3 times"), "{error}");
    }
    refused.check(&blob("2")).unwrap();
}

#[test]
fn causes_outside_the_layer_do_not_count() {
    let refused = RefusedLayers::default();
    for _try in 0..10 {
        refused.note(
            &blob("1"),
            &unpack(tucano_oci_image::Error::Helper("no memory".to_owned())),
        );
        let gone = Err::<(), _>(Error::Fetch {
            digest: "sha256:1".to_owned(),
            url: "http://c".to_owned(),
            reason: "it does not answer".to_owned(),
        });
        refused.note(&blob("1"), &gone);
        let index = tucano_oci_image::Error::TooManyToIndex(blob("1"));
        refused.note(&blob("1"), &unpack(index));
    }
    refused.check(&blob("1")).unwrap();
}

#[test]
fn a_success_ends_the_count() {
    let refused = RefusedLayers::default();
    for _round in 0..3 {
        refused.note(&blob("1"), &died());
        refused.note(&blob("1"), &died());
        refused.note(&blob("1"), &Ok(()));
    }
    refused.check(&blob("1")).unwrap();
}

#[test]
fn the_number_of_remembered_layers_is_bounded() {
    let refused = RefusedLayers::default();
    for number in 0..MAX_LAYERS + 10 {
        let blob = format!("sha256:{number:064x}").parse().unwrap();
        refused.note(&blob, &died());
    }
    assert_eq!(refused.all().len(), MAX_LAYERS);
}
