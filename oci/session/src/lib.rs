//! The protocol of a session: a client has a command run in a container. Controllers and agents forward it unchanged.
//!
//! Each frame is a byte for its kind, the length of its content as four bytes (big-endian), and the content:
//!
//! | from the client | | to the client | |
//! |---|---|---|---|
//! | 0 | input; nothing: there will be no more | 1 | output |
//! | 4 | the terminal's new size, as JSON | 2 | error output |
//! | 5 | what to run, as JSON: the first frame | 3 | how it ended, as JSON: the last frame |
//!
//! Over HTTP a session begins with `POST`, `Connection: Upgrade` and `Upgrade: tucano-exec`, and the answer 101. The
//! command is killed if the client closes the connection before the end.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The protocol's name in `Upgrade`.
pub const UPGRADE: &str = "tucano-exec";

/// Maximum length of a frame's content; a longer frame ends the session.
pub const FRAME_BYTES: usize = 64 << 10;

/// Whether a request asks for a session, according to its headers.
pub fn is_upgrade_request<'a>(header: impl Fn(&str) -> Option<&'a [u8]>) -> bool {
    let says = |name: &str, wanted: &str| {
        let mut words = header(name).unwrap_or_default().split(|byte| *byte == b',');
        words.any(|word| word.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes()))
    };
    says("connection", "upgrade") && says("upgrade", UPGRADE)
}

/// Kind and length.
const HEAD_BYTES: usize = 5;

/// Why a frame cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Unknown kind.
    #[error("a frame of the unknown kind {0}")]
    Kind(u8),
    /// The frame is too long.
    #[error("a frame of {0} bytes: at most {FRAME_BYTES} are allowed")]
    Length(usize),
    /// The frame's JSON is invalid.
    #[error("a frame of kind {kind}: {source}")]
    Json {
        /// The kind.
        kind: u8,
        /// The error.
        source: serde_json::Error,
    },
}

/// The command to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Begin {
    /// Program, resolved by the container's PATH, and arguments; not empty.
    pub command: Vec<String>,
    /// The client's terminal; the command runs without one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<Terminal>,
}

/// The client's terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terminal {
    /// Type of the terminal (`TERM`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Size of the terminal.
    pub size: Size,
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Width.
    pub columns: u16,
    /// Height.
    pub rows: u16,
}

/// Outcome of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Its exit code; 128 plus the signal number if a signal killed it.
    Exited(i32),
    /// It could not be run, for this reason.
    Failed(String),
}

/// Frames of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromClient {
    /// Standard input; empty: end of input.
    Input(Vec<u8>),
    /// The terminal's new size.
    Resize(Size),
    /// The command to run.
    Begin(Begin),
}

/// Frames to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToClient {
    /// Standard output, or output of the terminal.
    Output(Vec<u8>),
    /// Standard error.
    ErrorOutput(Vec<u8>),
    /// Outcome of the command.
    End(End),
}

/// A message that is encoded as one frame.
pub trait Frame: Sized {
    /// Kind and content; the content is not longer than [`FRAME_BYTES`].
    fn parts(&self) -> (u8, Vec<u8>);

    /// Decodes a frame.
    ///
    /// # Errors
    /// An unknown kind, or invalid JSON.
    fn of(kind: u8, content: &[u8]) -> Result<Self, Error>;

    /// Encodes the frame.
    fn encode(&self) -> Vec<u8> {
        let (kind, content) = self.parts();
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(HEAD_BYTES + content.len());
        bytes.push(kind);
        bytes.extend(length.to_be_bytes());
        bytes.extend(content);
        bytes
    }
}

impl Frame for FromClient {
    fn parts(&self) -> (u8, Vec<u8>) {
        match self {
            Self::Input(bytes) => (0, bytes.clone()),
            Self::Resize(size) => (4, json(size)),
            Self::Begin(begin) => (5, json(begin)),
        }
    }

    fn of(kind: u8, content: &[u8]) -> Result<Self, Error> {
        match kind {
            0 => Ok(Self::Input(content.to_vec())),
            4 => parse(kind, content).map(Self::Resize),
            5 => parse(kind, content).map(Self::Begin),
            other => Err(Error::Kind(other)),
        }
    }
}

impl Frame for ToClient {
    fn parts(&self) -> (u8, Vec<u8>) {
        match self {
            Self::Output(bytes) => (1, bytes.clone()),
            Self::ErrorOutput(bytes) => (2, bytes.clone()),
            Self::End(end) => (3, json(end)),
        }
    }

    fn of(kind: u8, content: &[u8]) -> Result<Self, Error> {
        match kind {
            1 => Ok(Self::Output(content.to_vec())),
            2 => Ok(Self::ErrorOutput(content.to_vec())),
            3 => parse(kind, content).map(Self::End),
            other => Err(Error::Kind(other)),
        }
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Of strings and numbers in structures alone, which is always possible.
    serde_json::to_vec(value).unwrap_or_default()
}

fn parse<T: DeserializeOwned>(kind: u8, content: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(content).map_err(|source| Error::Json { kind, source })
}

/// Splits a byte stream into frames.
#[derive(Debug, Default)]
pub struct Decoder(Vec<u8>);

impl Decoder {
    /// Adds received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next complete frame.
    ///
    /// # Errors
    /// The bytes are not a frame; the stream cannot be used any further.
    pub fn next_frame<T: Frame>(&mut self) -> Result<Option<T>, Error> {
        let Some((head, rest)) = self.0.split_first_chunk::<HEAD_BYTES>() else {
            return Ok(None);
        };
        let [kind, length @ ..] = *head;
        let length = u32::from_be_bytes(length) as usize;
        if length > FRAME_BYTES {
            return Err(Error::Length(length));
        }
        let Some(content) = rest.get(..length) else {
            return Ok(None);
        };
        let frame = T::of(kind, content)?;
        self.0.drain(..HEAD_BYTES + length);
        Ok(Some(frame))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use super::*;

    fn begin() -> Begin {
        Begin {
            command: vec!["sh".into(), "-c".into(), "true".into()],
            terminal: Some(Terminal {
                name: Some("xterm".into()),
                size: Size {
                    columns: 80,
                    rows: 24,
                },
            }),
        }
    }

    #[test]
    fn frames_are_decoded_from_any_fragmentation() {
        let sent = [
            FromClient::Begin(begin()),
            FromClient::Input(b"ls\n".to_vec()),
            FromClient::Resize(Size {
                columns: 1,
                rows: 2,
            }),
            FromClient::Input(Vec::new()),
        ];
        let bytes: Vec<u8> = sent.iter().flat_map(Frame::encode).collect();
        for piece in 1..bytes.len() {
            let mut decoder = Decoder::default();
            let mut found = Vec::new();
            for bytes in bytes.chunks(piece) {
                decoder.push(bytes);
                while let Some(frame) = decoder.next_frame::<FromClient>().unwrap() {
                    found.push(frame);
                }
            }
            assert_eq!(found, sent, "{piece}");
        }
    }

    #[test]
    fn both_headers_are_needed_as_proxies_may_write_them() {
        let asks = |connection: &'static [u8], upgrade: &'static [u8]| {
            is_upgrade_request(|name| match name {
                "connection" => Some(connection),
                _ => Some(upgrade),
            })
        };
        assert!(asks(b"keep-alive, Upgrade", UPGRADE.as_bytes()));
        assert!(asks(b"upgrade", b"Tucano-Exec"));
        assert!(!asks(b"upgrade", b"websocket"));
        assert!(!asks(b"close", UPGRADE.as_bytes()));
        let only_upgrade = |name: &str| (name == "upgrade").then_some(UPGRADE.as_bytes());
        assert!(!is_upgrade_request(only_upgrade));
    }

    #[test]
    fn the_bytes_are_those_of_the_table() {
        let output = ToClient::Output(b"hi".to_vec()).encode();
        assert_eq!(output, b"\x01\0\0\0\x02hi");
        let end = ToClient::End(End::Exited(3)).encode();
        assert_eq!(end, b"\x03\0\0\0\x0c{\"exited\":3}");
    }

    #[test]
    fn invalid_frames_are_errors() {
        let told = |bytes: &[u8]| {
            let mut decoder = Decoder::default();
            decoder.push(bytes);
            decoder.next_frame::<FromClient>().unwrap_err().to_string()
        };
        assert_eq!(
            told(b"GET / HTTP/1.1\r\n"),
            "a frame of 1163141167 bytes: at most 65536 are allowed"
        );
        assert_eq!(told(b"\x09\0\0\0\0"), "a frame of the unknown kind 9");
        assert!(told(b"\x05\0\0\0\x02{}").contains("missing field `command`"));
        assert!(told(b"\x04\0\0\0\x04null").contains("a frame of kind 4"));
    }
}
