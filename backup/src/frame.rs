//! What follows the request on standard input.

use std::io::{self, Read, Write};

/// Maximum length of a frame's content.
pub const FRAME_BYTES: usize = 64 << 10;

/// Kind and length.
const HEAD_BYTES: usize = 5;

/// One frame: a byte for its kind, the length of its content as four bytes (big-endian), and the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// 0: the next bytes of the stream.
    Data(Vec<u8>),
    /// 1: the stream is complete and its producer succeeded, or the tree may be kept: save the snapshot.
    Commit,
    /// 2: give up, with the reason. No snapshot is saved.
    Abort(String),
}

/// Why a frame cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Unknown kind.
    #[error("a frame of the unknown kind {0}")]
    Kind(u8),
    /// The frame is too long.
    #[error("a frame of {0} bytes: at most {FRAME_BYTES} are allowed")]
    Length(usize),
    /// The input failed, or ended within a frame.
    #[error("cannot read a frame: {0}")]
    Io(#[from] io::Error),
}

impl Frame {
    /// Reads the next frame; none at the end of the input.
    ///
    /// # Errors
    /// The input is not a frame, or ends within one.
    pub fn read(input: &mut impl Read) -> Result<Option<Self>, FrameError> {
        let mut head = [0; HEAD_BYTES];
        if !begins(input, &mut head)? {
            return Ok(None);
        }
        input.read_exact(&mut head[1..])?;
        let [kind, length @ ..] = head;
        let length = u32::from_be_bytes(length) as usize;
        if length > FRAME_BYTES {
            return Err(FrameError::Length(length));
        }
        let mut content = vec![0; length];
        input.read_exact(&mut content)?;
        match kind {
            0 => Ok(Some(Self::Data(content))),
            1 => Ok(Some(Self::Commit)),
            2 => Ok(Some(Self::Abort(
                String::from_utf8_lossy(&content).into_owned(),
            ))),
            other => Err(FrameError::Kind(other)),
        }
    }

    /// Writes the frame. Longer content than a frame may have is written as several frames.
    ///
    /// # Errors
    /// The output fails.
    pub fn write(&self, output: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Data(content) => Self::write_data(content, output),
            Self::Commit => write(1, &[], output),
            Self::Abort(reason) => write(
                2,
                &reason.as_bytes()[..reason.len().min(FRAME_BYTES)],
                output,
            ),
        }
    }

    /// Writes bytes of the stream, without a copy.
    ///
    /// # Errors
    /// The output fails.
    pub fn write_data(content: &[u8], output: &mut impl Write) -> io::Result<()> {
        for piece in content.chunks(FRAME_BYTES) {
            write(0, piece, output)?;
        }
        Ok(())
    }
}

/// Reads the first byte of a frame; false at the end of the input.
fn begins(input: &mut impl Read, head: &mut [u8]) -> io::Result<bool> {
    loop {
        match input.read(&mut head[..1]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map(|length| length > 0),
        }
    }
}

fn write(kind: u8, content: &[u8], output: &mut impl Write) -> io::Result<()> {
    let length = u32::try_from(content.len()).map_err(io::Error::other)?;
    output.write_all(&[kind])?;
    output.write_all(&length.to_be_bytes())?;
    output.write_all(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(frames: &[Frame]) -> Vec<u8> {
        let mut output = Vec::new();
        for frame in frames {
            frame.write(&mut output).expect("a vector takes everything");
        }
        output
    }

    #[test]
    fn frames_are_read_as_written() {
        let frames = [
            Frame::Data(b"dump".to_vec()),
            Frame::Commit,
            Frame::Abort("pg_dump ended with 1".to_owned()),
        ];
        let written = bytes(&frames);
        let mut input = &written[..];
        for frame in frames {
            let read = Frame::read(&mut input).expect("a frame");
            assert_eq!(read, Some(frame));
        }
        assert!(matches!(Frame::read(&mut input), Ok(None)));
    }

    #[test]
    fn long_content_is_divided() {
        let written = bytes(&[Frame::Data(vec![7; FRAME_BYTES + 1])]);
        let mut input = &written[..];
        let Ok(Some(Frame::Data(first))) = Frame::read(&mut input) else {
            panic!("no frame of data");
        };
        assert_eq!(first.len(), FRAME_BYTES);
        let second = Frame::read(&mut input).expect("a frame");
        assert_eq!(second, Some(Frame::Data(vec![7])));
    }

    #[test]
    fn an_end_within_a_frame_is_an_error() {
        let written = bytes(&[Frame::Data(vec![7; 100])]);
        for length in 1..written.len() {
            let result = Frame::read(&mut &written[..length]);
            assert!(matches!(result, Err(FrameError::Io(_))), "{length}");
        }
    }

    #[test]
    fn frames_are_bounded() {
        let result = Frame::read(&mut &[0, 0xff, 0xff, 0xff, 0xff][..]);
        assert!(matches!(result, Err(FrameError::Length(_))));
        let result = Frame::read(&mut &[9, 0, 0, 0, 0][..]);
        assert!(matches!(result, Err(FrameError::Kind(9))));
    }
}
