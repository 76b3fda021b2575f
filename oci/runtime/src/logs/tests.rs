use super::*;

fn log(files: u32) -> (tempfile::TempDir, Log) {
    let directory = tempfile::tempdir().unwrap();
    let limits = LogLimits {
        file_bytes: 5000,
        files,
    };
    let log = Log::new(directory.path().join("out.log"), limits);
    (directory, log)
}

fn lengths(directory: &Path) -> Vec<(String, u64)> {
    let mut all: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, entry.metadata().unwrap().len())
        })
        .collect();
    all.sort();
    all
}

#[test]
fn output_is_kept_whole_while_it_fits() {
    let (directory, mut log) = log(3);
    let text: Vec<u8> = (0..12_000u32).map(|index| (index % 251) as u8).collect();
    text.chunks(777)
        .for_each(|chunk| log.append(chunk, &mut |_| {}));
    let names = ["out.log.2", "out.log.1", "out.log"];
    let kept: Vec<u8> = names
        .iter()
        .flat_map(|name| fs::read(directory.path().join(name)).unwrap())
        .collect();
    assert_eq!(kept, text);
}

fn pipes() -> ([OwnedFd; 2], [File; 2]) {
    let (stdout, stdout_inside) = rustix::pipe::pipe().unwrap();
    let (stderr, stderr_inside) = rustix::pipe::pipe().unwrap();
    (
        [stdout, stderr],
        [stdout_inside.into(), stderr_inside.into()],
    )
}

/// The pieces of both logs in the order of the index.
fn in_order(directory: &Path) -> Vec<u8> {
    let index = fs::read(directory.join(output_index::NAME)).unwrap();
    let mut text = Vec::new();
    for record in index.as_chunks().0.iter().map(Record::read) {
        let record = record.unwrap();
        let name = match record.source {
            Source::Stdout => "stdout.log",
            Source::Stderr => "stderr.log",
        };
        let path = directory.join(name);
        assert_eq!(fs::metadata(&path).unwrap().ino(), record.inode);
        let whole = fs::read(path).unwrap();
        let start = record.offset as usize;
        text.extend_from_slice(&whole[start..start + record.length as usize]);
    }
    text
}

#[test]
fn the_index_has_the_order_of_both_streams() {
    let directory = tempfile::tempdir().unwrap();
    let (read, [mut stdout, mut stderr]) = pipes();
    let mut outputs = Outputs::new(read, directory.path(), LogLimits::default()).unwrap();
    let mut written = String::new();
    for number in 0..50 {
        let to = if number % 3 == 0 {
            &mut stderr
        } else {
            &mut stdout
        };
        let line = format!("line {number}\n");
        to.write_all(line.as_bytes()).unwrap();
        outputs.take(1, &mut |_, _| {});
        written.push_str(&line);
    }
    assert_eq!(
        String::from_utf8(in_order(directory.path())).unwrap(),
        written
    );
    drop((stdout, stderr));
    outputs.take(1, &mut |_, _| {});
    assert_eq!(outputs.descriptors().len(), 0);
}

#[test]
fn streams_that_are_both_full_take_turns() {
    let directory = tempfile::tempdir().unwrap();
    let (read, [mut stdout, mut stderr]) = pipes();
    let mut outputs = Outputs::new(read, directory.path(), LogLimits::default()).unwrap();
    stdout.write_all(&[b'o'; 4 * CHUNK_BYTES]).unwrap();
    stderr.write_all(&[b'e'; 4 * CHUNK_BYTES]).unwrap();
    outputs.take(64, &mut |_, _| {});
    let text = in_order(directory.path());
    let chunks: Vec<u8> = text.chunks(CHUNK_BYTES).map(|chunk| chunk[0]).collect();
    assert_eq!(chunks, b"oeoeoeoe");
}

#[test]
fn the_oldest_output_is_dropped_and_the_limits_hold() {
    for files in [0, 1, 2, 3] {
        let (directory, mut log) = log(files);
        (0..50).for_each(|_| log.append(&[b'x'; 1000], &mut |_| {}));
        let kept = lengths(directory.path());
        assert_eq!(kept.len(), files.max(1) as usize, "{kept:?}");
        assert!(kept.iter().all(|(_, length)| *length <= 5000), "{kept:?}");
    }
}

#[test]
fn a_log_that_exists_is_continued() {
    let (directory, mut log) = log(2);
    fs::write(directory.path().join("out.log"), [b'a'; 4999]).unwrap();
    log.append(b"bb", &mut |_| {});
    assert_eq!(
        lengths(directory.path()),
        [("out.log".to_owned(), 1), ("out.log.1".to_owned(), 5000)]
    );
}

/// A log is reopened by name after each rotation, and must not follow a link that was put there.
#[test]
fn a_link_in_place_of_a_log_is_not_followed() {
    for files in [1, 3] {
        let (directory, mut log) = log(files);
        let other = directory.path().join("other");
        fs::write(&other, "kept").unwrap();
        let path = directory.path().join("out.log");
        std::os::unix::fs::symlink(&other, &path).unwrap();
        (0..50).for_each(|_| log.append(&[b'x'; 1000], &mut |_| {}));
        assert_eq!(fs::read(&other).unwrap(), b"kept");
        fs::remove_file(&path).unwrap();
        log.append(&[b'x'; 4999], &mut |_| {});
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        (0..50).for_each(|_| log.append(&[b'x'; 1000], &mut |_| {}));
        assert_eq!(fs::read(&other).unwrap(), b"kept");
    }
}

#[test]
fn a_failed_write_drops_only_its_output() {
    let (directory, mut log) = log(2);
    let path = directory.path().join("out.log");
    fs::create_dir(&path).unwrap();
    log.append(b"lost", &mut |_| panic!("nothing was written"));
    fs::remove_dir(&path).unwrap();
    log.append(b"kept", &mut |_| {});
    assert_eq!(fs::read(&path).unwrap(), b"kept");
}
