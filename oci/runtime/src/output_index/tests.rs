use std::fs;

use super::*;

const LIMITS: LogLimits = LogLimits {
    file_bytes: 100_000,
    files: 3,
};

fn record(time_ms: u64, offset: u64, length: u64) -> Record {
    Record {
        source: Source::Stdout,
        time_ms,
        inode: 7,
        offset,
        length,
    }
}

fn records(path: &std::path::Path) -> Vec<Option<Record>> {
    let bytes = fs::read(path).unwrap();
    let (records, _) = bytes.as_chunks();
    records.iter().map(Record::read).collect()
}

#[test]
fn a_record_is_read_as_it_was_written() {
    for source in [Source::Stdout, Source::Stderr] {
        for (time_ms, inode, offset, length) in [
            (0, 0, 0, 1),
            (MAX_TIME_MS, u64::MAX, MAX_OFFSET, MAX_LENGTH),
        ] {
            let record = Record {
                source,
                time_ms,
                inode,
                offset,
                length,
            };
            assert_eq!(Record::read(&record.write().unwrap()), Some(record));
        }
    }
    assert_eq!(record(0, MAX_OFFSET + 1, 1).write(), None);
    assert_eq!(record(MAX_TIME_MS + 1, 0, 1).write(), None);
}

#[test]
fn a_damaged_record_is_refused() {
    let whole = record(1_782_907_200_123, 4096, 77).write().unwrap();
    for index in 0..RECORD_BYTES {
        for bit in 0..8 {
            let mut damaged = whole;
            damaged[index] ^= 1 << bit;
            let read = Record::read(&damaged);
            assert!(read.is_none(), "byte {index}, bit {bit}: {read:?}");
        }
    }
    assert_eq!(Record::read(&[0; RECORD_BYTES]), None);
    assert_eq!(Record::read(&[0xFF; RECORD_BYTES]), None);
}

#[test]
fn pieces_that_continue_each_other_become_one_record() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(NAME);
    let mut writer = IndexWriter::new(path.clone(), LIMITS);
    writer.note(record(5, 0, 10));
    writer.note(record(5, 10, 10));
    writer.note(record(6, 20, 10));
    writer.note(record(6, 40, 10));
    writer.flush();
    writer.flush();
    let expected = [record(5, 0, 20), record(6, 20, 10), record(6, 40, 10)];
    assert_eq!(records(&path), expected.map(Some));
}

#[test]
fn the_index_is_bounded_by_the_logs_and_keeps_the_newest() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(NAME);
    let mut writer = IndexWriter::new(path, LIMITS);
    for number in 0..20_000 {
        writer.note(record(number, number * 5, 1));
        writer.flush();
    }
    let mut files: Vec<_> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert_eq!(files.len(), FILES as usize);
    let sizes = files.iter().map(|path| fs::metadata(path).unwrap().len());
    let logs = LIMITS.file_bytes * u64::from(LIMITS.files) * 2;
    assert!(sizes.sum::<u64>() <= logs / PART_OF_LOGS);
    let newest = records(&files[0]);
    assert_eq!(newest.last(), Some(&Some(record(19_999, 99_995, 1))));
    let oldest = records(&files[3]);
    assert_eq!(oldest.iter().filter(|record| record.is_none()).count(), 0);
}

#[test]
fn a_record_that_was_cut_off_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(NAME);
    let whole = record(1, 0, 1).write().unwrap();
    fs::write(&path, [&whole[..], &whole[..7]].concat()).unwrap();
    let mut writer = IndexWriter::new(path.clone(), LIMITS);
    writer.note(record(2, 1, 1));
    writer.flush();
    assert_eq!(
        records(&path),
        [Some(record(1, 0, 1)), Some(record(2, 1, 1))]
    );
}

#[test]
fn an_index_that_cannot_be_written_stops_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(NAME);
    fs::create_dir(&path).unwrap();
    let mut writer = IndexWriter::new(path.clone(), LIMITS);
    writer.note(record(1, 0, 1));
    writer.flush();
    fs::remove_dir(&path).unwrap();
    writer.note(record(2, 1, 1));
    writer.flush();
    assert_eq!(records(&path), [Some(record(2, 1, 1))]);
}
