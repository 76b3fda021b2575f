use super::*;

const OUT: Source = Source::Stdout;
const ERR: Source = Source::Stderr;

fn chunk(inode: u64, offset: u64, text: &str) -> Chunk {
    Chunk {
        inode,
        offset,
        bytes: text.as_bytes().to_vec(),
    }
}

fn record(source: Source, inode: u64, offset: u64, length: u64, time_ms: u64) -> Record {
    Record {
        source,
        time_ms,
        inode,
        offset,
        length,
    }
}

/// Each line as `<time> <stream> <text>`, `+` at the end of a piece.
fn shown(lines: &[OutputLine]) -> Vec<String> {
    let show = |line: &OutputLine| {
        let time = line.time.map_or("-".to_owned(), |time| time.0.to_string());
        let text = String::from_utf8_lossy(&line.text);
        let more = if line.is_complete { "" } else { "+" };
        format!("{time} {} {text}{more}", &line.stream.name()[3..])
    };
    lines.iter().map(show).collect()
}

fn merged(chunks: &[(Source, Chunk)], records: &[Record]) -> Vec<String> {
    let mut merger = Merger::new(&[OUT, ERR]);
    for (source, chunk) in chunks {
        merger.push_chunk(*source, chunk.clone());
    }
    merger.push_records(records.iter().copied());
    merger.merge_older();
    merger.finish();
    shown(&merger.lines())
}

#[test]
fn lines_come_in_the_order_of_the_index_whatever_their_times() {
    let chunks = [(OUT, chunk(1, 0, "a\nc\n")), (ERR, chunk(2, 0, "b\nd\n"))];
    let records = [
        record(OUT, 1, 0, 2, 30),
        // The clock was set back.
        record(ERR, 2, 0, 2, 10),
        record(OUT, 1, 2, 2, 11),
        record(ERR, 2, 2, 2, 11),
    ];
    assert_eq!(
        merged(&chunks, &records),
        ["30 out a", "10 err b", "11 out c", "11 err d"]
    );
}

#[test]
fn without_an_index_stdout_comes_first() {
    let chunks = [(ERR, chunk(2, 0, "b\nd\n")), (OUT, chunk(1, 0, "a\nc\n"))];
    assert_eq!(
        merged(&chunks, &[]),
        ["- out a", "- out c", "- err b", "- err d"]
    );
}

#[test]
fn a_line_is_whole_although_the_other_stream_writes_meanwhile() {
    let chunks = [(OUT, chunk(1, 0, "begin end\n")), (ERR, chunk(2, 0, "b\n"))];
    let records = [
        record(OUT, 1, 0, 6, 1),
        record(ERR, 2, 0, 2, 2),
        record(OUT, 1, 6, 4, 3),
    ];
    assert_eq!(merged(&chunks, &records), ["2 err b", "3 out begin end"]);
}

#[test]
fn lines_without_a_newline_at_the_end_are_shown() {
    let chunks = [(OUT, chunk(1, 0, "a\nopen")), (ERR, chunk(2, 0, "b"))];
    let records = [record(OUT, 1, 0, 6, 1), record(ERR, 2, 0, 1, 2)];
    assert_eq!(
        merged(&chunks, &records),
        ["1 out a", "1 out open+", "2 err b+"]
    );
}

#[test]
fn a_line_continues_in_the_next_file() {
    let chunks = [(OUT, chunk(1, 90, "x\nbeg")), (OUT, chunk(3, 0, "in\n"))];
    let records = [record(OUT, 1, 90, 5, 1), record(OUT, 3, 0, 3, 2)];
    assert_eq!(merged(&chunks, &records), ["1 out x", "2 out begin"]);
}

#[test]
fn output_of_an_earlier_runtime_comes_before_what_the_index_has() {
    let chunks = [
        (OUT, chunk(1, 0, "old\nnew\n")),
        (ERR, chunk(2, 0, "OLD\nNEW\n")),
    ];
    let records = [record(ERR, 2, 4, 4, 5), record(OUT, 1, 4, 4, 6)];
    assert_eq!(
        merged(&chunks, &records),
        ["- out old", "- err OLD", "5 err NEW", "6 out new"]
    );
}

#[test]
fn bytes_that_lack_a_record_keep_their_place() {
    let chunks = [(OUT, chunk(1, 0, "a\nb\nc\n")), (ERR, chunk(2, 0, "x\n"))];
    // That of "b" could not be written.
    let records = [
        record(OUT, 1, 0, 2, 1),
        record(OUT, 1, 4, 2, 3),
        record(ERR, 2, 0, 2, 4),
    ];
    assert_eq!(
        merged(&chunks, &records),
        ["1 out a", "- out b", "3 out c", "4 err x"]
    );
}

#[test]
fn records_of_bytes_that_are_gone_are_dropped() {
    let chunks = [(OUT, chunk(3, 0, "a\n")), (ERR, chunk(2, 10, "b\n"))];
    let records = [
        record(OUT, 1, 0, 500, 1),
        record(ERR, 2, 0, 4, 1),
        // Partly cut away.
        record(ERR, 2, 4, 8, 2),
        record(OUT, 3, 0, 2, 3),
        record(OUT, 9, 0, u64::from(u32::MAX), 3),
        record(OUT, 3, 2, 1 << 20, 4),
    ];
    assert_eq!(merged(&chunks, &records), ["2 err b", "3 out a"]);
}

#[test]
fn a_long_line_is_split_evenly() {
    let long = "x".repeat(2 * MAX_PIECE_BYTES + 1) + "\n";
    let mut merger = Merger::new(&[OUT]);
    // Chunks end anywhere.
    let mut offset = 0;
    for part in long.as_bytes().chunks(777_777) {
        let bytes = part.to_vec();
        merger.push_chunk(
            OUT,
            Chunk {
                inode: 1,
                offset,
                bytes,
            },
        );
        offset += part.len() as u64;
    }
    merger.finish();
    let lengths = merger
        .lines()
        .iter()
        .map(|line| (line.text.len(), line.is_complete))
        .collect::<Vec<_>>();
    assert_eq!(
        lengths,
        [
            (MAX_PIECE_BYTES, false),
            (MAX_PIECE_BYTES, false),
            (1, true)
        ]
    );
}

#[test]
fn records_wait_for_bytes_that_are_still_to_be_read() {
    let mut merger = Merger::new(&[OUT, ERR]);
    merger.push_records([record(OUT, 1, 0, 4, 1), record(ERR, 2, 0, 2, 2)]);
    merger.push_chunk(OUT, chunk(1, 0, "a\n"));
    merger.push_chunk(ERR, chunk(2, 0, "x\n"));
    merger.merge(&[OUT]);
    assert_eq!(shown(&merger.lines()), ["1 out a"]);
    merger.push_chunk(OUT, chunk(1, 2, "b\n"));
    merger.merge(&[]);
    assert_eq!(shown(&merger.lines()), ["1 out b", "2 err x"]);
}

proptest::proptest! {
    /// Whatever the index holds, each byte is shown once, and each stream is in order.
    #[test]
    fn no_index_hides_or_doubles_a_byte(
        records in proptest::collection::vec((proptest::bool::ANY, 0_u64..4, 0_u64..40, 1_u64..30, 0_u64..9), 0..20),
        text in "[a-z\n]{0,60}",
        cut in 0_usize..60,
    ) {
        let (first, second) = text.split_at(cut.min(text.len()));
        let chunks = [
            (OUT, chunk(1, 3, first)),
            (ERR, chunk(2, 0, second)),
            (OUT, chunk(3, 0, second)),
        ];
        let records: Vec<_> = records
            .iter()
            .map(|(is_err, inode, offset, length, time)| {
                record(if *is_err { ERR } else { OUT }, *inode, *offset, *length, *time)
            })
            .collect();
        let mut merger = Merger::new(&[OUT, ERR]);
        for (source, chunk) in chunks {
            merger.push_chunk(source, chunk);
        }
        merger.push_records(records);
        merger.merge_older();
        merger.finish();
        let mut streams = [String::new(), String::new()];
        for line in merger.lines() {
            let to = &mut streams[usize::from(line.stream == OutputStream::Stderr)];
            to.push_str(std::str::from_utf8(&line.text).unwrap());
            to.push_str(if line.is_complete { "\n" } else { "" });
        }
        proptest::prop_assert_eq!(&streams[0], &text);
        proptest::prop_assert_eq!(&streams[1], second);
    }
}
