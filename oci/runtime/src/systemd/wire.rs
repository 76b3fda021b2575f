//! D-Bus messages (D-Bus specification, "Message Protocol"), as far as calls to systemd's manager need them.
//!
//! Messages come from systemd or the bus; lengths are checked all the same.

use std::io;

/// Maximum length of a message; usual ones have some hundred bytes.
pub(super) const MESSAGE_LIMIT_BYTES: usize = 1 << 20;

/// Length of the fixed part of a header.
pub(super) const FIXED_BYTES: usize = 16;

/// Message types.
pub(super) const CALL: u8 = 1;
pub(super) const RETURN: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const SIGNAL: u8 = 4;

/// Header fields.
pub(super) const PATH: u8 = 1;
pub(super) const INTERFACE: u8 = 2;
pub(super) const MEMBER: u8 = 3;
pub(super) const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
pub(super) const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// A value of a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Flag(bool),
    Number(u64),
    Numbers(Vec<u32>),
    Bytes(Vec<u8>),
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Self::Text(_) => "s",
            Self::Flag(_) => "b",
            Self::Number(_) => "t",
            Self::Numbers(_) => "au",
            Self::Bytes(_) => "ay",
        }
    }
}

/// Serialises values with their alignment, in little-endian byte order.
#[derive(Debug, Clone, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn u32(&mut self, value: u32) {
        self.pad(4);
        self.0.extend(value.to_le_bytes());
    }

    pub(super) fn flag(&mut self, value: bool) {
        self.u32(value.into());
    }

    /// A string or object path.
    pub(super) fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(text.len() as u8);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// An array whose elements have this alignment.
    pub(super) fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Self)) {
        self.u32(0);
        let length_at = self.0.len() - 4;
        self.pad(alignment);
        let begin = self.0.len();
        elements(self);
        let length = (self.0.len() - begin) as u32;
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    /// `a(sv)`
    pub(super) fn properties(&mut self, all: &[(&'static str, Value)]) {
        self.array(8, |writer| {
            for (name, value) in all {
                writer.pad(8);
                writer.text(name);
                writer.signature(value.signature());
                writer.value(value);
            }
        });
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Text(text) => self.text(text),
            Value::Flag(flag) => self.flag(*flag),
            Value::Number(number) => {
                self.pad(8);
                self.0.extend(number.to_le_bytes());
            }
            Value::Numbers(numbers) => self.array(4, |writer| {
                numbers.iter().for_each(|number| writer.u32(*number));
            }),
            Value::Bytes(bytes) => self.array(1, |writer| writer.0.extend(bytes)),
        }
    }

    fn pad(&mut self, alignment: usize) {
        self.0.resize(self.0.len().next_multiple_of(alignment), 0);
    }
}

/// Serialises a method call.
pub(super) fn call(serial: u32, fields: &[(u8, &str)], signature: &str, body: &Writer) -> Vec<u8> {
    let mut writer = Writer(vec![b'l', CALL, 0, 1]);
    writer.u32(body.0.len() as u32);
    writer.u32(serial);
    writer.array(8, |writer| {
        for (code, text) in fields {
            writer.pad(8);
            writer.0.push(*code);
            writer.signature(if *code == PATH { "o" } else { "s" });
            writer.text(text);
        }
        if !signature.is_empty() {
            writer.pad(8);
            writer.0.push(SIGNATURE);
            writer.signature("g");
            writer.signature(signature);
        }
    });
    writer.pad(8);
    writer.0.extend(&body.0);
    writer.0
}

/// A received message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: u8,
    /// Serial of the call that it answers.
    pub(super) reply_to: u32,
    /// Name of a signal or an error.
    pub(super) name: String,
    little: bool,
    body: Vec<u8>,
}

impl Message {
    /// Total length of a message that begins with these bytes.
    pub(super) fn length(fixed: &[u8; FIXED_BYTES]) -> io::Result<usize> {
        let mut reader = Reader::new(fixed, is_little(fixed[0])?);
        reader.at = 4;
        let body = reader.u32()? as usize;
        reader.at = 12;
        let fields = reader.u32()? as usize;
        let whole = fields
            .checked_add(FIXED_BYTES)
            .map(|header| header.next_multiple_of(8))
            .and_then(|header| header.checked_add(body));
        whole
            .filter(|length| *length <= MESSAGE_LIMIT_BYTES)
            .ok_or_else(|| broken("a message is too long"))
    }

    /// Parses a complete message.
    pub(super) fn parse(bytes: &[u8]) -> io::Result<Self> {
        let little = is_little(*bytes.first().ok_or_else(|| broken("it is empty"))?)?;
        let mut message = Self {
            kind: *bytes.get(1).ok_or_else(|| broken("it is cut short"))?,
            little,
            ..Self::default()
        };
        let mut reader = Reader::new(bytes, little);
        reader.at = 12;
        let end = FIXED_BYTES + reader.u32()? as usize;
        while reader.at < end {
            reader.align(8);
            message.take_field(&mut reader)?;
        }
        reader.align(8);
        message.body = bytes.get(reader.at..).unwrap_or_default().to_vec();
        Ok(message)
    }

    fn take_field(&mut self, reader: &mut Reader<'_>) -> io::Result<()> {
        let code = reader.u8()?;
        match reader.signature()?.as_str() {
            "s" | "o" => {
                let text = reader.text()?;
                if matches!(code, MEMBER | ERROR_NAME) {
                    self.name = text;
                }
            }
            "g" => drop(reader.signature()?),
            "u" => {
                let number = reader.u32()?;
                if code == REPLY_SERIAL {
                    self.reply_to = number;
                }
            }
            _ => return Err(broken("a field of an unknown type")),
        }
        Ok(())
    }

    /// The first value of the body, if it is a string or object path.
    pub(super) fn text(&self) -> io::Result<String> {
        Reader::new(&self.body, self.little).text()
    }

    /// Job and result of the signal `JobRemoved(u id, o job, s unit, s result)`.
    pub(super) fn removed_job(&self) -> io::Result<(String, String)> {
        let mut reader = Reader::new(&self.body, self.little);
        reader.u32()?;
        let job = reader.text()?;
        reader.text()?;
        Ok((job, reader.text()?))
    }
}

fn is_little(mark: u8) -> io::Result<bool> {
    match mark {
        b'l' => Ok(true),
        b'B' => Ok(false),
        _ => Err(broken("it is in no byte order")),
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("not understood: {what}"),
    )
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    little: bool,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8], little: bool) -> Self {
        Self {
            bytes,
            at: 0,
            little,
        }
    }

    fn align(&mut self, alignment: usize) {
        self.at = self.at.next_multiple_of(alignment);
    }

    fn take(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let end = self.at.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| broken("it is cut short"))?;
        self.at += count;
        Ok(taken)
    }

    fn u8(&mut self) -> io::Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn u32(&mut self) -> io::Result<u32> {
        self.align(4);
        let bytes = self.take(4)?;
        let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
        Ok(if self.little {
            u32::from_le_bytes(bytes)
        } else {
            u32::from_be_bytes(bytes)
        })
    }

    fn text(&mut self) -> io::Result<String> {
        let length = self.u32()? as usize;
        self.string(length)
    }

    fn signature(&mut self) -> io::Result<String> {
        let length = self.u8()? as usize;
        self.string(length)
    }

    fn string(&mut self, length: usize) -> io::Result<String> {
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.take(1)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests;
