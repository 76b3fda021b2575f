use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::MetadataExt,
};

use tucano_api::logs::OutputStream;
use tucano_oci_runtime::output_index::{NAME, RecordFile};

use super::*;

/// Writes output and its index as the runtime does.
struct Writer {
    home: tempfile::TempDir,
    index: RecordFile,
}

impl Writer {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let index = RecordFile::new(home.path().join(NAME));
        Self { home, index }
    }

    fn path(&self) -> &Path {
        self.home.path()
    }

    fn write(&mut self, source: Source, time_ms: u64, text: &str) {
        let record = self.write_unnoted(source, time_ms, text);
        self.index.write(record).unwrap();
    }

    /// As a runtime without an index does.
    fn write_unnoted(&self, source: Source, time_ms: u64, text: &str) -> Record {
        let path = self.path().join(file_name(source));
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        let metadata = file.metadata().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        Record {
            source,
            time_ms,
            inode: metadata.ino(),
            offset: metadata.len(),
            length: text.len() as u64,
        }
    }

    fn rotate(&self, source: Source) {
        let path = self.path().join(file_name(source));
        let rotated = |number: u32| self.path().join(format!("{}.{number}", file_name(source)));
        for number in (1..3).rev() {
            // The oldest is replaced; some do not exist yet.
            fs::rename(rotated(number), rotated(number + 1)).ok();
        }
        fs::rename(&path, rotated(1)).unwrap();
    }
}

const OUT: Source = Source::Stdout;
const ERR: Source = Source::Stderr;

fn last(lines: usize) -> Part {
    Part {
        selection: Selection::Both,
        bounds: Bounds {
            lines,
            bytes: 1 << 20,
        },
        since: None,
    }
}

fn shown(lines: &[OutputLine]) -> Vec<String> {
    let show = |line: &OutputLine| {
        let time = line.time.map_or("-".to_owned(), |time| time.0.to_string());
        let stream = if line.stream == OutputStream::Stdout {
            "out"
        } else {
            "err"
        };
        format!("{time} {stream} {}", String::from_utf8_lossy(&line.text))
    };
    lines.iter().map(show).collect()
}

fn of(home: &Path, part: Part) -> Vec<String> {
    shown(&past(home, part).unwrap())
}

/// Polls until nothing comes.
fn rest(output: &mut Output) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let polled = output.poll().unwrap();
        lines.extend(shown(&polled.lines));
        if polled.is_idle {
            return lines;
        }
    }
}

#[test]
fn the_last_lines_are_those_of_both_streams_in_order() {
    let mut writer = Writer::new();
    for number in 0..10 {
        let source = if number % 2 == 0 { OUT } else { ERR };
        writer.write(source, number, &format!("{number}\n"));
    }
    assert_eq!(
        of(writer.path(), last(3)),
        ["7 err 7", "8 out 8", "9 err 9"]
    );
    assert_eq!(of(writer.path(), last(99)).len(), 10);
    assert_eq!(of(writer.path(), last(0)), [""; 0]);
    let stdout = Part {
        selection: Selection::Stdout,
        ..last(2)
    };
    assert_eq!(of(writer.path(), stdout), ["6 out 6", "8 out 8"]);
}

#[test]
fn an_empty_home_has_no_lines() {
    let home = tempfile::tempdir().unwrap();
    assert_eq!(of(home.path(), last(10)), [""; 0]);
    fs::write(home.path().join("stdout.log"), "").unwrap();
    assert_eq!(of(home.path(), last(10)), [""; 0]);
}

#[test]
fn a_last_line_without_a_newline_counts() {
    let mut writer = Writer::new();
    writer.write(OUT, 1, "a\nb\nc");
    assert_eq!(of(writer.path(), last(2)), ["1 out b", "1 out c"]);
}

#[test]
fn bytes_are_limited_over_both_streams() {
    let mut writer = Writer::new();
    writer.write(OUT, 1, "aaaa\n");
    writer.write(ERR, 2, "bbbb\n");
    let bounds = Bounds {
        lines: 99,
        bytes: 7,
    };
    assert_eq!(
        of(writer.path(), Part { bounds, ..last(0) }),
        ["1 out a", "2 err bbbb"]
    );
}

#[test]
fn output_survives_rotations_in_order() {
    let mut writer = Writer::new();
    let mut expected = Vec::new();
    for number in 0..30 {
        writer.write(OUT, number, &format!("o{number}\n"));
        writer.write(ERR, number, &format!("e{number}\n"));
        // Files are replaced, and the inodes of what was dropped are used again.
        if number % 4 == 3 {
            writer.rotate(OUT);
        }
        if number % 5 == 4 {
            writer.rotate(ERR);
        }
        if number >= 20 {
            expected.push(format!("{number} out o{number}"));
            expected.push(format!("{number} err e{number}"));
        }
    }
    assert_eq!(of(writer.path(), last(20)), expected);
}

#[test]
fn since_compares_each_line_with_its_own_time() {
    let mut writer = Writer::new();
    for (time, text) in [
        (100, "a\n"),
        (200, "b\n"),
        (150, "set back\n"),
        (300, "c\n"),
    ] {
        writer.write(OUT, time, text);
    }
    let since = |ms| Part {
        since: Some(Timestamp(ms)),
        ..last(99)
    };
    assert_eq!(of(writer.path(), since(200)), ["200 out b", "300 out c"]);
    assert_eq!(
        of(writer.path(), since(150)),
        ["200 out b", "150 out set back", "300 out c"]
    );
    assert_eq!(of(writer.path(), since(301)), [""; 0]);
}

#[test]
fn output_without_times_is_shown_unless_it_is_certainly_older() {
    let mut writer = Writer::new();
    writer.write_unnoted(OUT, 0, "old\n");
    writer.write(OUT, 100, "a\n");
    writer.write_unnoted(ERR, 0, "unknown\n");
    let since = |ms| Part {
        since: Some(Timestamp(ms)),
        ..last(99)
    };
    assert_eq!(
        of(writer.path(), since(100)),
        ["- out old", "- err unknown", "100 out a"]
    );
    assert_eq!(of(writer.path(), since(101)), ["- err unknown"]);
    let stderr = File::options()
        .append(true)
        .open(writer.path().join("stderr.log"))
        .unwrap();
    stderr
        .set_modified(SystemTime::UNIX_EPOCH + Duration::from_millis(90))
        .unwrap();
    assert_eq!(of(writer.path(), since(101)), [""; 0]);
}

#[test]
fn a_damaged_index_costs_order_and_times_only() {
    let mut writer = Writer::new();
    for number in 0..40 {
        let source = if number % 2 == 0 { OUT } else { ERR };
        writer.write(source, number, &format!("{number}\n"));
    }
    let path = writer.path().join(NAME);
    let whole = fs::read(&path).unwrap();
    let mut garbled = whole.clone();
    garbled[100..200].fill(0xA6);
    let mut zeroed = whole.clone();
    zeroed[480..].fill(0);
    let half = whole[..whole.len() / 2 + 5].to_vec();
    for damaged in [
        garbled,
        zeroed,
        half,
        vec![0xFF; 5000],
        Vec::new(),
        whole[24..].to_vec(),
    ] {
        fs::write(&path, damaged).unwrap();
        let mut lines = of(writer.path(), last(99));
        assert_eq!(lines.len(), 40, "{lines:?}");
        let of_stdout = |line: &String| line.contains("out");
        let stdout: Vec<_> = lines.extract_if(.., |line| of_stdout(line)).collect();
        for (index, line) in stdout.iter().enumerate() {
            assert!(line.ends_with(&format!(" {}", index * 2)), "{stdout:?}");
        }
        let (mut output_lines, mut output) =
            Output::follow(writer.path(), Path::new("/none"), last(99))
                .map(|(lines, output)| (shown(&lines), output))
                .unwrap();
        output_lines.extend(rest(&mut output));
        assert_eq!(output_lines.len(), 40, "{output_lines:?}");
    }
    fs::remove_file(&path).unwrap();
    let lines = of(writer.path(), last(99));
    assert!(
        lines[..20].iter().all(|line| line.starts_with("- out")),
        "{lines:?}"
    );
}

#[test]
fn followed_lines_come_in_order_through_rotations() {
    let mut writer = Writer::new();
    writer.write(OUT, 1, "a\nbeg");
    let (lines, mut output) = Output::follow(writer.path(), Path::new("/none"), last(99)).unwrap();
    assert_eq!(shown(&lines), ["1 out a"]);
    writer.write(ERR, 2, "x\n");
    writer.write(OUT, 3, "in\n");
    assert_eq!(rest(&mut output), ["2 err x", "3 out begin"]);
    let mut expected = Vec::new();
    for number in 10..20 {
        writer.write(ERR, number, "e\n");
        writer.rotate(ERR);
        writer.write(OUT, number, "o\n");
        expected.extend([format!("{number} err e"), format!("{number} out o")]);
        if number % 3 == 0 {
            writer.rotate(OUT);
        }
        if number % 2 == 0 {
            assert_eq!(rest(&mut output), expected);
            expected.clear();
        }
    }
}

#[test]
fn output_before_its_record_waits_for_it_but_not_for_ever() {
    let mut writer = Writer::new();
    writer.write(OUT, 1, "a\n");
    let (_, mut output) = Output::follow(writer.path(), Path::new("/none"), last(99)).unwrap();
    let late = writer.write_unnoted(ERR, 2, "late\n");
    writer.write(OUT, 3, "b\n");
    assert_eq!(shown(&output.poll().unwrap().lines), ["3 out b"]);
    writer.index.write(late).unwrap();
    assert_eq!(rest(&mut output), ["2 err late"]);
    writer.write_unnoted(ERR, 0, "never noted\n");
    assert_eq!(rest(&mut output), ["- err never noted"]);
}

#[test]
fn without_an_index_output_is_followed_at_once() {
    let writer = Writer::new();
    let (lines, mut output) = Output::follow(writer.path(), Path::new("/none"), last(99)).unwrap();
    assert!(lines.is_empty());
    writer.write_unnoted(ERR, 0, "first\n");
    assert_eq!(shown(&output.poll().unwrap().lines), ["- err first"]);
}

#[test]
fn nothing_is_shown_twice_where_following_begins() {
    let mut writer = Writer::new();
    writer.write(OUT, 1, "a\n");
    // Its record has come, and the tail ends within it.
    let record = writer.write_unnoted(OUT, 2, "b\n");
    writer
        .index
        .write(Record {
            length: 4,
            ..record
        })
        .unwrap();
    let (lines, mut output) = Output::follow(writer.path(), Path::new("/none"), last(1)).unwrap();
    assert_eq!(shown(&lines), ["2 out b"]);
    writer.write_unnoted(OUT, 2, "c\n");
    writer.write(OUT, 3, "d\n");
    assert_eq!(rest(&mut output), ["2 out c", "3 out d"]);
}

#[test]
fn the_last_line_of_a_removed_process_needs_no_newline() {
    let mut writer = Writer::new();
    let kept = tempfile::tempdir().unwrap();
    let (_, mut output) = Output::follow(writer.path(), kept.path(), last(99)).unwrap();
    writer.write(OUT, 1, "its only line");
    for name in ["stdout.log", NAME] {
        fs::rename(writer.path().join(name), kept.path().join(name)).unwrap();
    }
    fs::remove_dir(writer.path()).unwrap();
    assert!(output.is_over());
    assert_eq!(rest(&mut output), [""; 0]);
    assert_eq!(shown(&output.finish()), ["1 out its only line"]);
}
