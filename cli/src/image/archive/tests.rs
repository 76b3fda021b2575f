use super::*;

const LAYOUT: [(&str, &str); 4] = [
    ("oci-layout", "{}"),
    ("index.json", "{}"),
    ("blobs/sha256/bb", "2"),
    ("blobs/sha256/aa", "1"),
];

#[test]
fn a_layout_directory_becomes_a_tar_of_its_files_in_order() {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in LAYOUT {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    fs::write(directory.path().join("notes.txt"), "not part of it").unwrap();
    let files = layout_files(directory.path()).unwrap();
    let mut bytes = Vec::new();
    write_tar(
        directory.path(),
        files.iter().map(|(name, _)| name.as_path()),
        &mut bytes,
    )
    .unwrap();
    let mut archive = tar::Archive::new(bytes.as_slice());
    let names: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|e| e.unwrap().path().unwrap().display().to_string())
        .collect();
    assert_eq!(
        names,
        [
            "oci-layout",
            "index.json",
            "blobs/sha256/aa",
            "blobs/sha256/bb"
        ]
    );
}
