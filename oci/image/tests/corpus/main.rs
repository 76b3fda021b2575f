//! A corpus of oddly built images, as tools in the field make them: each is imported, unpacked in both forms and mounted
//! as an overlay, and its files are compared with a table. Where umoci is installed, its verdict is compared too: what it
//! accepts is accepted here, or the case says why not.
//!
//! - `kit`: cases, and how they are checked;
//! - `parents`: directories without an entry of their own;
//! - `paths`, `links`, `whiteouts`: names and what they refer to;
//! - `tars`: old and unusual tar formats, metadata and attributes;
//! - `compression`, `documents`: what is around the layers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod compression;
mod documents;
mod kit;
mod links;
mod parents;
mod paths;
mod peers;
mod tars;
mod whiteouts;

use kit::{Case, check_all};

/// Every case of the corpus.
fn corpus() -> Vec<Case> {
    [
        parents::cases(),
        paths::cases(),
        links::cases(),
        whiteouts::cases(),
        tars::cases(),
        compression::cases(),
        documents::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[test]
fn the_corpus_has_sixty_images() {
    let names: std::collections::BTreeSet<_> = corpus().iter().map(|case| case.name).collect();
    assert_eq!(names.len(), corpus().len(), "names are unique");
    assert!(names.len() >= 60, "{}", names.len());
}

#[test]
fn parents_without_an_entry_look_as_in_the_lower_layer() {
    check_all(parents::cases());
}

#[test]
fn paths_are_cleaned_once() {
    check_all(paths::cases());
}

#[test]
fn links_stay_in_their_layer() {
    check_all(links::cases());
}

#[test]
fn whiteouts_hide_lower_layers() {
    check_all(whiteouts::cases());
}

#[test]
fn unusual_tars_are_read() {
    check_all(tars::cases());
}

#[test]
fn every_compression_is_recognised() {
    check_all(compression::cases());
}

#[test]
fn unusual_documents_are_read() {
    check_all(documents::cases());
}

#[test]
fn what_umoci_accepts_is_accepted() {
    peers::compare_with_umoci(corpus());
}

#[test]
fn what_podman_accepts_is_accepted() {
    peers::compare_with_podman(corpus());
}
