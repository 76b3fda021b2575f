use super::*;

#[test]
fn the_end_of_a_program_is_reported_as_it_was() {
    for end in [
        ProgramEnd {
            code: Some(0),
            signal: None,
        },
        ProgramEnd {
            code: Some(255),
            signal: None,
        },
        ProgramEnd {
            code: None,
            signal: Some(9),
        },
        ProgramEnd {
            code: None,
            signal: Some(64),
        },
    ] {
        let (read, write) = rustix::pipe::pipe().unwrap();
        rustix::io::write(&write, &end.write()).unwrap();
        assert_eq!(ProgramEnd::read(&read), Some(end));
        // An init that was killed has reported nothing.
        assert_eq!(ProgramEnd::read(&read), None);
        drop(write);
        assert_eq!(ProgramEnd::read(&read), None);
    }
    let killed = ProgramEnd {
        code: None,
        signal: Some(9),
    };
    assert_eq!(killed.exit_code(), 137);
}
