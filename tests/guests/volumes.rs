//! Volumes on a kernel with project quotas, and with an agent that may do what agents may on servers.

use std::{fs, path::Path, process::Command, time::Duration};

use tucano_image_builder::{Compression, Entry, ImageSpec, Layer};
use tucano_testkit::{find_tool, needs, programs, tool};
use tucano_tests::images;

use crate::{
    emulated::EMULATED,
    guest::{GUEST, Guest},
    node::assert_lines,
    runtime::test_programs,
};

/// System calls are slow in a guest.
const PATIENCE: Duration = Duration::from_secs(900);

#[test]
#[ignore = "it takes longer than the guests of CI may, and was not seen to end on the emulated machine"]
fn volumes_are_kept_to_their_sizes_by_file_systems_and_by_quotas() {
    let tools = [
        "chattr", "curl", "ip", "jq", "ldd", "mkfs.xfs", "nft", "python3",
    ]
    .map(tool);
    if !needs(&GUEST) || !needs(&EMULATED) || !needs(&tools) {
        return;
    }
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let archive = directory.path().join("box.tar");
    fs::write(&archive, image()).unwrap();
    let [quotas] = test_programs(["quotas"]);
    let (exit, output) = Guest::emulated("volumes.sh")
        .word("directory", programs().display())
        .word("image", images::sample("hello").display())
        .word("box", archive.display())
        .word("quotas", quotas.display())
        .run(PATIENCE);
    assert_eq!(exit, Some(0), "{output}");
    let lines = [
        "file: loop file",
        "quota: project quota",
        "quota's size: 65536",
        "options: nosuid,nodev",
        "escapes: 4",
        "file is full: No space left on device",
        "quota is full: Disk quota exceeded",
        "beside them: 1",
        "beside it: 33554432",
        "same processes: 2",
        "grown: 2",
        "inodes: 1",
        "unenforced: mount it with the option prjquota",
        "left: 0",
        "all is well",
    ];
    assert_lines(&output, &lines);
    let kinds = output.matches("quota: project quota\n").count();
    assert_eq!(kinds, 2, "before and after the agent's restart: {output}");
    assert_eq!(output.matches("test result: ok").count(), 2, "{output}");
}

/// An image with a shell, and the program that changes the project of a file.
fn image() -> Vec<u8> {
    let busybox = fs::read(find_tool("busybox").unwrap()).unwrap();
    let chattr = find_tool("chattr").unwrap();
    let mut entries = vec![
        Entry::directory("bin/"),
        Entry::file("bin/busybox", busybox).mode(0o755),
        Entry::file("bin/chattr", fs::read(&chattr).unwrap()).mode(0o755),
        Entry::directory("data/"),
    ];
    for library in libraries(&chattr) {
        let name = library.trim_start_matches('/').to_owned();
        let content = fs::read(&library).unwrap();
        entries.push(Entry::file(&name, content).mode(0o755));
    }
    let layer = Layer::new(&entries, Compression::Gzip).unwrap();
    let mut image = ImageSpec::new("box").layer(layer);
    image.entrypoint = vec!["/bin/busybox".to_owned()];
    image.build().unwrap().archive().unwrap()
}

/// The files that a program loads.
fn libraries(program: &Path) -> Vec<String> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let words = text.split_whitespace();
    words
        .filter(|word| word.starts_with('/'))
        .map(str::to_owned)
        .collect()
}
